use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use weft_ca::{Authority, CaConfig, MemoryKeyStore};
use weft_certs::TrustDomain;
use weft_env::Env;

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct World {
    keys: MemoryKeyStore,
    journal: Journal,
    plan: Plan,
    taken: Vec<Next>,
}

impl World {
    fn new(tier: Tier) -> Self {
        let keys = MemoryKeyStore::new();
        let journal = Authority::create(&config(), &keys, now(), &mut Env::system().rng("t"));
        Self {
            keys,
            journal: journal.unwrap(),
            plan: Plan::new(1, tier, Vec::new(), now()),
            taken: Vec::new(),
        }
    }

    fn authority(&self) -> Authority {
        Authority::load(config(), self.journal.clone(), &self.keys).unwrap()
    }

    /// Carries the next step out. False at the end.
    fn step(&mut self) -> bool {
        let next = self.plan.next(&self.journal).unwrap();
        let ca = self.authority();
        let mut rng = Env::system().rng("t");
        match &next {
            Next::Discard(tier, id) => {
                self.journal = self.journal.retire_now(*tier, id, now()).unwrap();
            }
            Next::Intend(tier) => self.journal = ca.intend(*tier, &mut rng).unwrap(),
            Next::Prepare(Tier::Root) => {
                self.journal = ca.prepare_root(&self.keys, now(), &mut rng).unwrap();
            }
            Next::Prepare(Tier::Issuing) => {
                self.journal = ca.prepare_issuing(&self.keys, now(), &mut rng).unwrap();
            }
            Next::Adopt(Tier::Root, id) => self.plan.root = Some(id.clone()),
            Next::Adopt(Tier::Issuing, id) => self.plan.issuing = Some(id.clone()),
            Next::Distribute => self.plan.distributed = Some(Milestone::default()),
            Next::Activate(tier, id) => {
                self.journal = self.journal.activate(*tier, id, now()).unwrap();
            }
            Next::Renew(_) => self.plan.renewed = Some(Milestone::default()),
            Next::RetireIssuing(id) => {
                self.journal = ca.retire_issuing(id, now()).unwrap();
            }
            Next::RetireRoot(id) => {
                self.journal = self.journal.retire_now(Tier::Root, id, now()).unwrap();
            }
            Next::Finish => return false,
        }
        self.taken.push(next);
        true
    }

    fn run(&mut self) {
        for _ in 0..32 {
            if !self.step() {
                return;
            }
        }
        panic!("it does not end: {:?}", self.taken);
    }
}

fn config() -> CaConfig {
    CaConfig::new(TrustDomain::parse("weft.local").unwrap())
}

#[test]
fn a_root_is_known_everywhere_before_it_signs_and_the_old_one_goes_last() {
    use Next::*;
    let mut world = World::new(Tier::Root);
    world.run();
    let (root, issuing) = ("root-2".to_owned(), "issuing-2".to_owned());
    assert_eq!(
        world.taken,
        [
            Intend(Tier::Root),
            Prepare(Tier::Root),
            Adopt(Tier::Root, root.clone()),
            Distribute,
            Activate(Tier::Root, root),
            Intend(Tier::Issuing),
            Prepare(Tier::Issuing),
            Adopt(Tier::Issuing, issuing.clone()),
            Activate(Tier::Issuing, issuing.clone()),
            Renew(issuing),
            RetireIssuing("issuing-1".to_owned()),
            RetireRoot("root-1".to_owned()),
        ]
    );
    let names: BTreeSet<_> = world.keys.names().into_iter().collect();
    world.authority();
    let needed: BTreeSet<_> = world.journal.keys().cloned().collect();
    assert!(needed.is_subset(&names));
}

#[test]
fn an_issuing_ca_is_replaced_under_the_same_root() {
    let mut world = World::new(Tier::Issuing);
    world.run();
    assert!(!world.taken.contains(&Next::Distribute));
    assert_eq!(world.journal.active(Tier::Root).unwrap().id, "root-1");
    assert_eq!(world.journal.active(Tier::Issuing).unwrap().id, "issuing-2");
}

#[test]
fn what_lies_prepared_is_used_if_it_fits_and_discarded_if_not() {
    let mut world = World::new(Tier::Root);
    let mut rng = Env::system().rng("t");
    let ca = world.authority();
    // An issuing CA under the root that is to go.
    world.journal = ca.prepare_issuing(&world.keys, now(), &mut rng).unwrap();
    let ca = world.authority();
    world.journal = ca.prepare_root(&world.keys, now(), &mut rng).unwrap();
    world.run();
    assert_eq!(world.taken[0], Next::Adopt(Tier::Root, "root-2".to_owned()));
    let discard = Next::Discard(Tier::Issuing, "issuing-2".to_owned());
    assert!(world.taken.contains(&discard), "{:?}", world.taken);
    let issuing = world.journal.active(Tier::Issuing).unwrap();
    assert_eq!(issuing.issuer.as_deref(), Some("root-2"));
}

#[test]
fn going_on_from_any_stored_state_comes_to_the_same_end() {
    for tier in [Tier::Issuing, Tier::Root] {
        let mut whole = World::new(tier);
        whole.run();
        for cut in 0..whole.taken.len() {
            let mut world = World::new(tier);
            for _ in 0..cut {
                world.step();
            }
            let plan = serde_json::to_string(&world.plan).unwrap();
            world.plan = serde_json::from_str(&plan).unwrap();
            world.run();
            assert_eq!(world.taken, whole.taken, "cut after {cut}");
        }
    }
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let world = World::new(Tier::Root);
    let mut plan = world.plan.clone();
    plan.old = vec![Named {
        name: "root-1".into(),
        role: "root".into(),
        serial: String::new(),
        pin: String::new(),
    }];
    let steps = preview(&plan, &world.journal, 3).join("\n");
    assert!(
        steps.contains("all 3 connected sidecars acknowledge"),
        "{steps}"
    );
    assert!(steps.contains("drop root-1 once no certificate"), "{steps}");
    plan.now = true;
    let steps = preview(&plan, &world.journal, 3).join("\n");
    assert!(steps.contains("drop root-1 at once"), "{steps}");
}
