"""Deployments: the rules, the desired state of every device, and the reports that move them on."""
