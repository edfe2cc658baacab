"""`python -m prunella_agent` is the supervisor."""

from prunella_agent.supervisor import main

if __name__ == "__main__":
    main()
