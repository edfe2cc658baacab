"""What a choice was made on, as plain words, kept with every decision so that it can be judged and repeated later."""

from services.decider.decision import DecisionInputs

# Bounds what an odd plugin can make us store.
MOST = 32


def features(inputs: DecisionInputs, seed: str) -> dict[str, str]:
    """The features of a decision's inputs; `seed` is where its chance came from."""
    figures = {f"figure.{name}": f"{value:g}" for name, value in sorted(inputs.figures.items())[:MOST]}
    environment = {f"environment.{name}": value for name, value in sorted(inputs.environment.items())[:MOST]}
    return {
        "symptom": inputs.symptom,
        "severity": inputs.severity,
        "package": inputs.package,
        "release": inputs.release,
        "round": str(inputs.round),
        "config_digest": inputs.config_digest,
        "tried": ", ".join(f"{tried.action} {tried.release}".strip() for tried in inputs.tried),
        "seed": seed,
        **figures,
        **environment,
    }
