//! Metrics, edges, access log
