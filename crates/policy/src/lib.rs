//! Pure decisions: route match, load balancing, retry, authorization
