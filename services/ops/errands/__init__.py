"""What ops does outside: spans forwarded, uptime probed, notifications delivered."""
