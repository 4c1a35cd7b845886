//! QUIC endpoint, connection pool, tunnels between identities
