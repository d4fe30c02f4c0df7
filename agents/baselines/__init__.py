"""What PSGPO is compared with: the same rollouts, samplers, judges, schemes and losses, less the critic."""
