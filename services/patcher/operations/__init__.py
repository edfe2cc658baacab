"""What several doors of the patcher do: one file per operation on attempts, rollouts, their members and approvals."""
