"""Where a run happens: one module a launcher, each behind the hook ``launch_run``."""
