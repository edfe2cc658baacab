"""Every SQL statement of the patcher; rows to dataclasses and back."""
