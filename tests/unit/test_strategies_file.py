"""The file of strategies: what comes along is valid, and each mistake in another is named with its remedy."""

from pathlib import Path

import pytest

from libs.common.errors import Invalid
from services.queue import catalogue_file
from services.queue.catalogue import Catalogue

DEFAULT = Path(catalogue_file.__file__).with_name("strategies.toml")
TYPE = """
[[type]]
name = "disk"
title = "The disk is full"
severity = "high"
confidence = 0.9
patterns = ["no space left"]
"""
STRATEGY = """
[[strategy]]
name = "disk_relieved"
title = "See whether there is room"
type = "disk"
confidence = 0.5
weight = 6

[[strategy.step]]
tool = "host.folders"
arguments = { plugin = "{plugin}" }

[strategy.check]
tool = "host.disk"
path = "used.percent"
comparison = "at_most"
value = 90
"""


def read(text: str) -> Catalogue:
    return catalogue_file.parse(text, "own.toml")


def mistakes(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert (caught.value.reason, caught.value.field) == ("BAD_STRATEGIES", "QUEUE_STRATEGIES")
    return caught.value.message.splitlines()


def test_the_file_that_comes_along_knows_what_was_asked_for() -> None:
    catalogue = read(DEFAULT.read_text())
    assert {error_type.name for error_type in catalogue.error_types} >= {
        "undefined_property", "missing_module", "network", "timeout", "permission", "memory", "disk", "certificate",
        "rate_limit", "schema_mismatch", "dependency_conflict", "configuration", "webhook_signature", "process_down",
    }  # fmt: skip
    assert len(catalogue.strategy_set.strategies) >= 14
    assert {strategy.type for strategy in catalogue.strategy_set.strategies} == {
        error_type.name for error_type in catalogue.error_types
    }
    rates = {
        s.name: s.prior.successes / (s.prior.successes + s.prior.failures) for s in catalogue.strategy_set.strategies
    }
    assert rates["undefined_property_access"] == pytest.approx(0.9)
    assert rates["missing_module_import"] == pytest.approx(0.85)
    minutes = {s.name: s.estimated_seconds / 60 for s in catalogue.strategy_set.strategies}
    assert (minutes["undefined_property_access"], minutes["missing_module_import"]) == (10, 5)


def test_a_good_file_is_read_whole() -> None:
    catalogue = read(TYPE + STRATEGY)
    (strategy,) = catalogue.strategy_set.strategies
    assert strategy.check.value == "90"
    assert strategy.steps[0].arguments == '{"plugin": "{plugin}"}'
    assert len(catalogue.version) == 12


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        (TYPE, ('severity = "high"', 'severity = "awful"'), "[[type]] disk, field `severity` must be one of critical"),
        (TYPE, ("confidence = 0.9", "confidence = 1.5"), "disk, field `confidence` must be above 0 and at most 1"),
        (TYPE, ("confidence = 0.9", "confidence = nan"), "field `confidence` must be above 0"),
        (TYPE, ("severity", "severty"), "`severty` is not known; did you mean `severity`?"),
        (TYPE, ('["no space left"]', '["no space(.*"]'), "field `patterns` holds 'no space(.*', which may only group"),
        (TYPE, ('["no space left"]', "[]"), "field `patterns` must be a list of 1 to 40"),
        (TYPE, ('["no space left"]', "[7]"), "field `patterns` must be texts"),
        (TYPE, ('["no space left"]', '[{ text = "abc", confidence = 2 }]'), "field `confidence` must be above 0"),
        (TYPE, ('name = "disk"', 'name = "Disk full!"'), "field `name` must be 2 to 64 of a-z"),
        (TYPE, ("patterns", 'fields = ["page"]\npatterns'), "field `fields` must be a list of some of type, message"),
        (STRATEGY, ('type = "disk"', 'type = "dusk"'), "[[strategy]] disk_relieved, field `type` must be one of disk"),
        (STRATEGY, ("confidence = 0.5", "confidence = 7"), "field `confidence` must be a number from 0 to 1"),
        (STRATEGY, ("weight = 6", ""), "field `weight` must be above 0"),
        (STRATEGY, ('"at_most"', '"about"'), "check, field `comparison` must be one of absent, at_least"),
        (STRATEGY, ("value = 90", 'value = "90"'), "check, field `value` must be a number for at_most"),
        (STRATEGY, ("value = 90", ""), "check, field `value` is needed for at_most"),
        (STRATEGY, ('"at_most"', '"absent"'), "check, field `value` means nothing for absent"),
        (STRATEGY, ("used.percent", "used[0]"), "check, field `path` must be names joined by dots"),
        (STRATEGY, ("[strategy.check]", "[strategy.chuck]"), "`chuck` is not known; did you mean `check`?"),
        (STRATEGY, ('"host.disk"', '"disk"'), "check, field `tool` must be server.tool"),
        (STRATEGY, ('tool = "host.disk"', 'tool = "host.disk"\nwrite = true'), "check, field `write` is not known"),
        (STRATEGY, ('"{plugin}"', '"{message}"'), "field `arguments` holds '{message}'; only {plugin}, {label}"),
        (STRATEGY, ('"{plugin}"', '"a{"'), "step 1, field `arguments` holds '{'"),
        (STRATEGY, ("{ plugin =", '{ "{plugin}" ='), "field `arguments` holds"),
        (STRATEGY, ('"{plugin}"', "1979-05-27"), "field `arguments` must be a table of JSON values"),
        (STRATEGY, ('name = "disk_relieved"', 'name = "disk_relieved"\nauto_fixable = 1'), "must be true or false"),
        (STRATEGY, ("weight = 6", "weight = 6\nestimated_seconds = -1"), "`estimated_seconds` must be 1 to 86400"),
        (STRATEGY, ('tool = "host.folders"', 'tool = "host.disk"\nwrite = true'), "must be the same for host.disk"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_table_rule_and_remedy(text: str, change: tuple[str, str], said: str) -> None:
    whole = TYPE + STRATEGY
    assert change[0] in text
    broken = whole.replace(text, text.replace(*change))
    found = mistakes(broken)
    assert any(said in line for line in found), found
    assert all(line.startswith("own.toml: ") and ";" in line for line in found)


def test_every_mistake_is_told_at_once() -> None:
    broken = (TYPE + STRATEGY).replace("0.9", "9").replace("at_most", "about").replace("{plugin}", "{stack}")
    assert len(mistakes(broken)) == 3


def test_names_are_given_once() -> None:
    assert "[[type]] disk, field `name` must be given once" in mistakes(TYPE + TYPE)[0]
    assert "[[strategy]] disk_relieved, field `name` must be given once" in mistakes(TYPE + STRATEGY + STRATEGY)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what", "this is not TOML"),
        ("[status]\npromote_confidence = 0.1\n", "field `promote_confidence` must not be below"),
        ("[status]\npromote = 1\n", "[status], field `promote` is not known"),
        ("status = 1\n", "field `status` must be a table"),
        ("strategy = 1\n", "field `strategy` must be a list of tables"),
        ("[stategy]\n", "field `stategy` is not known; did you mean `strategy`?"),
    ],
)
def test_the_rest_of_the_file_is_checked_too(text: str, said: str) -> None:
    assert said in mistakes(text)[0]
