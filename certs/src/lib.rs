//! Who am I, whom do I trust: SPIFFE IDs, X.509 SVIDs, trust bundles, rustls configs that follow rotation
