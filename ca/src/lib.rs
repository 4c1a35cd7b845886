//! The authority: root, issuing CA, leaf; authority journal, join tokens, issuance policy
