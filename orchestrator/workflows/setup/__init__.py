"""Before the first machine: what this computer and the cloud can do, and a `tlvm.toml`."""
