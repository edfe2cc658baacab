"""What a choice was made on, as plain words, kept with every decision so that it can be judged and repeated later."""

from services.decider.decision import Situation

# Bounds what an odd plugin can make us store.
MOST = 32


def features(situation: Situation, seed: str) -> dict[str, str]:
    """The features of a situation; `seed` is where its chance came from."""
    figures = {f"figure.{name}": f"{value:g}" for name, value in sorted(situation.figures.items())[:MOST]}
    environment = {f"environment.{name}": value for name, value in sorted(situation.environment.items())[:MOST]}
    return {
        "symptom": situation.symptom,
        "severity": situation.severity,
        "package": situation.package,
        "release": situation.release,
        "round": str(situation.round),
        "config_digest": situation.config_digest,
        "tried": ", ".join(f"{tried.action} {tried.release}".strip() for tried in situation.tried),
        "seed": seed,
        **figures,
        **environment,
    }
