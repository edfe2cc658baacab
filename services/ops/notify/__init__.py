"""The word to people: which facts become messages, to whom, when, and what happens when nobody answers."""
