"""The playbook: which remedies match in which order, and what a mistake in the file is told."""

from pathlib import Path

import pytest

from libs.common.errors import Invalid
from services.decider import playbook
from services.decider.decision import Remedy

DEFAULT = Path(playbook.__file__).with_name("playbook.toml")
GOOD = """
[[remedy]]
package = "shop"
symptom = "error_spike"
from = "1.0.0"
action = "patch"
release = "1.0.1"
prior = { successes = 16 }
why = "known"
"""


def remedy(**changes: object) -> str:
    fields: dict[str, object] = {
        "package": "shop",
        "symptom": "error_spike",
        "from": "1.0.0",
        "action": "patch",
        "release": "1.0.1",
        "why": "known",
    }
    fields |= changes
    pairs = [(name, f'"{value}"' if isinstance(value, str) else value) for name, value in fields.items()]
    lines = "".join(f"{name} = {value}\n" for name, value in pairs)
    prior = "" if {"prior", "confidence", "weight"} & changes.keys() else "prior = { successes = 16 }\n"
    return f"[[remedy]]\n{lines}{prior}"


def mistakes(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        playbook.parse(text, "own.toml")
    assert caught.value.reason == "BAD_PLAYBOOK"
    return caught.value.message.splitlines()


def test_the_default_playbook_is_valid_and_states_087_for_the_known_fix() -> None:
    read = playbook.parse(DEFAULT.read_text(), DEFAULT.name)
    (known,) = read.matching("webhook_fail_rate", "checkout", "1.2.0")
    assert (known.remedy, known.prior.confidence) == (Remedy("patch", "1.2.3"), 0.87)


def test_a_dead_plugin_is_restarted_then_rolled_back_and_silence_goes_to_people() -> None:
    read = playbook.parse(DEFAULT.read_text(), DEFAULT.name)
    assert [known.remedy.action for known in read.matching("plugin_down", "any", "9.9")] == ["restart", "rollback"]
    assert [known.remedy.action for known in read.matching("heartbeat_missed", "any", "9.9")] == ["notify_ops"]


def test_what_names_more_goes_first_then_the_order_of_the_file() -> None:
    text = (
        remedy(package="*", **{"from": "*"}, release="1")
        + remedy(package="*", **{"from": "1.0.*"}, release="2")
        + remedy(**{"from": "*"}, release="3")
        + remedy(**{"from": "1.0.0"}, release="4")
        + remedy(**{"from": "1.0.0"}, release="5")
        + remedy(**{"from": "1.1.*"}, release="6")
    )
    found = playbook.parse(text, "own.toml").matching("error_spike", "shop", "1.0.0")
    assert [known.remedy.release for known in found] == ["4", "5", "3", "2", "1"]


def test_a_prefix_matches_whole_numbers_only() -> None:
    read = playbook.parse(remedy(**{"from": "1.2.*"}), "own.toml")
    assert read.matching("error_spike", "shop", "1.2.9")
    assert not read.matching("error_spike", "shop", "1.20.9")


def test_a_configuration_is_mended_by_a_named_version_or_by_what_the_plugin_should_have() -> None:
    named = remedy(symptom="config_drift", action="config_fix", configuration="7").replace('release = "1.0.1"\n', "")
    unnamed = remedy(symptom="config_drift", action="config_fix").replace('release = "1.0.1"\n', "")
    book = playbook.parse(named + unnamed, "own.toml")
    found = [known.remedy for known in book.matching("config_drift", "shop", "1.0.0")]
    assert found == [Remedy("config_fix", "7"), Remedy("config_fix")]
    default = playbook.parse(DEFAULT.read_text(), "playbook.toml")
    (drift,) = default.matching("config_drift", "anything", "1.0.0")
    assert drift.remedy == Remedy("config_fix")


def test_the_version_is_a_digest_of_the_text() -> None:
    first, again = playbook.parse(GOOD, "a"), playbook.parse(GOOD, "b")
    assert first.version == again.version != playbook.parse(GOOD + "# more\n", "a").version


def test_a_prior_may_be_a_rate_with_a_weight() -> None:
    read = playbook.parse(remedy(confidence=0.9, weight=20), "own.toml")
    assert (read.remedies[0].prior.successes, round(read.remedies[0].prior.failures, 9)) == (18, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD.replace("package", "pakage"),
            "number 1, field `pakage` is not known; did you mean `package`?",
        ),
        (remedy(symptom="sadness"), "field `symptom` must be one of agent_degraded, config_drift"),
        (remedy(action="reboot"), "field `action` must be one of config_fix"),
        (remedy(release=""), "field `release` is needed for patch; name the version"),
        (remedy(action="restart"), "field `release` means nothing for restart; leave it out"),
        (remedy(release="../x"), "field `release` must be a version"),
        (remedy(release="1.0.0"), "field `release` must differ from `from`"),
        (remedy(**{"from": "~1"}), "field `from` must be a version, a prefix"),
        (remedy(why=""), "field `why` must be a text of 1 to 500 characters"),
        (remedy(package=7), "field `package` must be a text"),
        (remedy(order=0), "field `order` must be a whole number from 1 on; it was 0"),
        (remedy(configuration="7"), "field `configuration` means nothing for patch; leave it out"),
        (remedy(action="config_fix"), "field `release` means nothing for config_fix; leave it out"),
        (
            remedy(action="config_fix", configuration="../x").replace('release = "1.0.1"\n', ""),
            "field `configuration` must be a version",
        ),
        (remedy(prior=3), "field `prior` is needed; write prior = { successes"),
        (GOOD.replace("successes", "succeses"), "[[remedy]] number 1, prior, field `succeses` is not known"),
        (GOOD.replace("16", "nan"), "field `successes` must be a number from 0 to 10000; it was nan"),
        (GOOD.replace("16", "true"), "field `successes` must be a number from 0 to 10000; it was True"),
        (GOOD.replace("16", "-1"), "field `successes` must be a number from 0 to 10000; it was -1"),
        (remedy(confidence=1.2, weight=3), "field `confidence` must be a number from 0 to 1"),
        (remedy(confidence=0.9), "field `weight` must be above 0"),
        (GOOD + "confidence = 0.9\n", "field `prior` excludes confidence and weight"),
        *(
            (remedy(symptom=alone), f"field `action` must be notify_ops for {alone}")
            for alone in ("heartbeat_missed", "plugin_away", "agent_degraded")
        ),
        ("[ladder]\nconfident = 1.5\n", "[ladder], field `confident` must be a number above 0 and below 1; it was 1.5"),
        ("[laddr]\n", "the file, field `laddr` is not known; did you mean `ladder`?"),
        ("remedy = 3\n", "field `remedy` must be a list of tables; write [[remedy]]"),
        ("[[remedy\n", "this is not TOML"),
    ],
)
def test_a_mistake_names_file_table_field_rule_and_remedy(text: str, said: str) -> None:
    lines = mistakes(text)
    assert any(line.startswith("own.toml: ") and said in line for line in lines), lines


def test_all_mistakes_are_told_at_once() -> None:
    assert len(mistakes(remedy(symptom="x", action="y") + remedy(why=""))) == 3
