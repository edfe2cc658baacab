"""How each kind of channel is spoken to; the only rooms of ops that call out for notifications."""
