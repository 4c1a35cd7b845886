//! The seams to the world: network, clocks, randomness, disk, spawning
