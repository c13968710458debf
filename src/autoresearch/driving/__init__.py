"""Those who do the research themselves, through the steps of the protocol: agents and people."""
