"""Built-in idea generators and what they share."""
