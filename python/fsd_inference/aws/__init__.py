"""Use of AWS: clients, deployed stacks, leases of queues, the local emulator, and the Lambda functions."""
