"""`python -m tests.mutants [HEART…]`: how many small mistakes in each heart its unit tests notice.

Of each heart at least 85 % must be noticed. A survivor that is no mistake (another way of saying the same) stands in
`accepted.toml` with its reason, and does not count; an entry that fits nothing any more fails the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.mutants.hearts import HEARTS
from tests.mutants.mutation import Mutant, mutants, sample
from tests.mutants.trial import ROOT, killed, prepare

LEAST = 0.85
ACCEPTED = Path(__file__).with_name("accepted.toml")
# A mutant may take so many times as long as the heart as it is, and so many seconds more.
LONGER, MORE_SECONDS = 8.0, 5.0


@dataclass
class Figures:
    """What became of the mistakes in one heart."""

    heart: str
    tried: int = 0
    noticed: int = 0
    accepted: int = 0
    survivors: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether enough were noticed, and every accepted one is still there."""
        counted = self.tried - self.accepted
        return not self.stale and self.noticed >= LEAST * counted


def accepted_of(heart: str, path: Path = ACCEPTED) -> dict[tuple[str, str], str]:
    """Function and changed line of accepted survivors, with the reason."""
    entries = tomllib.loads(path.read_text()).get("survivor", [])
    return {(one["function"], one["line"]): one["reason"] for one in entries if one["heart"] == heart}


def look_at(heart: str, count: int, seed: int, accepted: dict[tuple[str, str], str], deadline: float) -> Figures:
    """Tries so many mistakes in one heart, until the deadline (monotonic seconds)."""
    source, tests = (ROOT / heart).read_text(), HEARTS[heart]
    began = time.monotonic()
    if killed(heart, source, tests, 300.0):
        raise SystemExit(f"{heart}: its tests {', '.join(tests)} fail without any mistake")
    seconds = LONGER * (time.monotonic() - began) + MORE_SECONDS
    found, every = Figures(heart), mutants(source)
    there = {(one.function, one.after) for one in every}
    found.stale = [f"{function}: {line}" for function, line in accepted if (function, line) not in there]
    for one in sample(every, count, seed):
        if time.monotonic() > deadline:
            break
        found.tried += 1
        if killed(heart, one.source, tests, seconds):
            found.noticed += 1
        elif (one.function, one.after) in accepted:
            found.accepted += 1
        else:
            found.survivors.append(told(heart, one))
    return found


def told(heart: str, one: Mutant) -> str:
    """A survivor in one line."""
    return f"{heart}:{one.line} {one.function}: `{one.before}` → `{one.after}`"


def changed_since(base: str) -> list[str]:
    """Hearts that changed since a commit, themselves or their tests."""
    run = subprocess.run(
        ["git", "diff", "--name-only", base, "--"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(run.stdout.split())
    return [heart for heart, tests in HEARTS.items() if names & {heart, *(f"tests/unit/{test}.py" for test in tests)}]


def report(figures: Iterable[Figures]) -> bool:
    """Says what was found; whether all is well."""
    well = True
    for one in figures:
        counted = one.tried - one.accepted
        share = f"{one.noticed / counted:.0%}" if counted else "–"
        sys.stdout.write(f"{'ok ' if one.good else 'BAD'} {one.heart}: {one.noticed} of {counted} noticed ({share})\n")
        for line in one.survivors:
            sys.stdout.write(f"      {line}\n")
        for line in one.stale:
            sys.stdout.write(f"      accepted.toml names what is not there: {line}\n")
        sys.stdout.flush()
        well &= one.good
    return well


def main(words: list[str] | None = None) -> int:
    """Exit status 0 when every heart is looked after well enough."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "hearts", nargs="*", metavar="HEART", help="such as services/ingest/boots.py; all when left out"
    )
    parser.add_argument("--sample", type=int, default=60, help="mistakes tried in each heart")
    parser.add_argument("--seed", type=int, default=1, help="which ones: the same for the same seed")
    parser.add_argument("--changed", metavar="COMMIT", help="only hearts that changed since this commit")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    unknown = sorted(set(given.hearts) - set(HEARTS))
    if unknown:
        parser.error(f"no heart is called {', '.join(unknown)}; tests/mutants/hearts.py lists them")
    chosen = given.hearts or (changed_since(given.changed) if given.changed else list(HEARTS))
    prepare()
    deadline = time.monotonic() + 60 * given.minutes
    figures = (look_at(one, given.sample, given.seed, accepted_of(one), deadline) for one in chosen)
    if given.json:
        made = list(figures)
        sys.stdout.write(json.dumps([asdict(one) for one in made], indent=1) + "\n")
        return 0 if all(one.good for one in made) else 1
    return 0 if report(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
