"""The door for agents: credentials, sessions, the group commit of beats, results and permits."""
