//! What of the file of attestors must fit together, beyond its shape.

use std::collections::BTreeSet;

use super::pattern::{Pattern, Placeholders};
use super::{AccountRule, Attestors, Given, MachineRule};
use crate::error::Checker;
use crate::name::{SYSTEM_NAMESPACE, check_label};

/// Attestors of one kind.
const MAX_ATTESTORS: usize = 16;
/// Rules of one attestor.
const MAX_RULES: usize = 1000;

impl MachineRule {
    fn check(&self, c: &mut Checker) {
        let patterns = [&self.uri, &self.dns, &self.common_name];
        let hashes = [("certificate", &self.certificate), ("key", &self.key)];
        let given = patterns.iter().filter(|p| p.is_some()).count()
            + hashes.iter().filter(|(_, hash)| hash.is_some()).count();
        if given != 1 {
            c.problem("a rule names machines by one of uri, dns, commonName, certificate and key");
        }
        for (field, hash) in hashes {
            if hash.as_ref().is_some_and(|text| !is_hash(text)) {
                c.problem_at(field, "expected sha256:<64 hexadecimal digits>");
            }
        }
        let bound = patterns.iter().find_map(|pattern| pattern.as_ref());
        self.identity
            .check(c, bound.map_or_else(Placeholders::default, Pattern::binds));
    }
}

fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:");
    digits.is_some_and(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl AccountRule {
    fn check(&self, c: &mut Checker) {
        for (field, pattern) in [
            ("namespace", &self.namespace),
            ("serviceAccount", &self.service_account),
        ] {
            if pattern.binds() != Placeholders::default() {
                c.problem_at(
                    field,
                    "has a placeholder: here is a name or *; {namespace} and {service} stand for what was matched, in identity",
                );
            }
        }
        let both = Placeholders {
            namespace: true,
            service: true,
        };
        self.identity.check(c, both);
    }
}

impl Given {
    /// Both halves of the identity must follow from the rule.
    fn check(&self, c: &mut Checker, bound: Placeholders) {
        c.field("identity", |c| {
            for (field, form, own) in [
                ("namespace", &self.namespace, bound.namespace),
                ("service", &self.service, bound.service),
            ] {
                let Some(form) = form else {
                    if !own {
                        c.problem(format!(
                            "{field} is missing: give it, or match it with {{{field}}}"
                        ));
                    }
                    continue;
                };
                let needs = form.needs();
                if (needs.namespace && !bound.namespace) || (needs.service && !bound.service) {
                    c.problem_at(field, "has a placeholder that the rule does not match");
                }
                if let Some(text) = form.literal() {
                    c.require(field, check_label(text));
                    if field == "namespace" && text == SYSTEM_NAMESPACE {
                        c.problem_at(field, "is reserved for weft itself");
                    }
                }
            }
        });
    }
}

impl Attestors {
    pub(super) fn check(&self, c: &mut Checker) {
        c.at_most("x509pop", &self.x509pop, MAX_ATTESTORS);
        c.at_most("k8s", &self.k8s, MAX_ATTESTORS);
        let mut names = BTreeSet::new();
        c.each("x509pop", &self.x509pop, |c, attestor| {
            check_attestor(c, &attestor.name, ("caFile", &attestor.ca_file));
            check_new(c, names.insert(attestor.name.as_str()));
            c.at_most("rules", &attestor.rules, MAX_RULES);
            c.each("rules", &attestor.rules, |c, rule| rule.check(c));
        });
        c.each("k8s", &self.k8s, |c, attestor| {
            check_attestor(c, &attestor.name, ("jwksFile", &attestor.jwks_file));
            check_new(c, names.insert(attestor.name.as_str()));
            for (field, text) in [
                ("issuer", &attestor.issuer),
                ("audience", &attestor.audience),
            ] {
                if text.is_empty() {
                    c.problem_at(field, "is empty: without it tokens for anybody would do");
                }
            }
            c.at_most("rules", &attestor.rules, MAX_RULES);
            c.each("rules", &attestor.rules, |c, rule| rule.check(c));
        });
    }
}

fn check_attestor(c: &mut Checker, name: &str, (field, file): (&str, &str)) {
    c.require("name", check_label(name));
    if file.is_empty() {
        c.problem_at(field, "names no file");
    }
}

fn check_new(c: &mut Checker, new: bool) {
    if !new {
        c.problem_at("name", "another attestor has this name already");
    }
}
