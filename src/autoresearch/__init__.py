"""autoresearch runs machine-learning research by itself, and can prove afterwards what it did."""
