"""What a model's endpoint is asked with besides the question, and what is left out when it refuses a part of it.

Rule: first the strictest: a fixed temperature, at most so many tokens, an answer by schema. A refusal names what it
does not take, as a field of its own or in its words; that one part is asked for in the next weaker way, and at last
left out. Each part only ever gets weaker, so this ends. What had to be weaker is remembered by whoever asks.
"""

import re
from dataclasses import dataclass, replace

# Models that think first spend tokens on it, and those are the ones that want the other word.
TOKENS = {"max_tokens": 400, "max_completion_tokens": 4000}
_WEAKER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": ""}
_WEAKER_FORMAT = {"json_schema": "json_object", "json_object": ""}
_FORMAT = re.compile(r"response_?format|json_?schema|json_?object|structured.?outputs?|json.?mode", re.IGNORECASE)
_PARAM = re.compile(r'"(?:param|parameter)"\s{0,4}:\s{0,4}"([\w.]{1,60})"')
# The status codes with which a request itself is refused.
REFUSED = frozenset({400, 413, 422})


@dataclass(frozen=True)
class Parameters:
    """`limit` names the parameter that bounds the answer, `format` the kind of answer asked for; empty: left out."""

    temperature: bool = True
    limit: str = "max_tokens"
    format: str = "json_schema"

    def weaker(self, refusal: str) -> "Parameters | None":
        """The parameters without what a refusal names; None when it names nothing that is sent."""
        named = _PARAM.search(refusal)
        return (named and self._without(named[1])) or self._without(refusal)

    def _without(self, words: str) -> "Parameters | None":
        if self.limit and re.search(rf"(?<![A-Za-z_]){self.limit}(?![A-Za-z_])", words):
            return replace(self, limit=_WEAKER_LIMIT[self.limit])
        if self.temperature and re.search(r"temperature", words, re.IGNORECASE):
            return replace(self, temperature=False)
        if self.format and _FORMAT.search(words):
            return replace(self, format=_WEAKER_FORMAT[self.format])
        return None
