//! HTTP/3 over quinn: a sans-I/O core and a thin shell
