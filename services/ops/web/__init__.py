"""Plain HTTP for people: the methods of OpsService, what ops passes on, and the names the seeds gave them."""
