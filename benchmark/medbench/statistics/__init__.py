"""Patient-clustered bootstrap, paired tests, and ranking with ties."""
