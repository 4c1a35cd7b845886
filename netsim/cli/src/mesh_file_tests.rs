use super::*;
use std::time::Duration;
use weft_netsim::Loss;

const MS: Duration = Duration::from_millis(1);

const WHOLE: &str = "
nodes:
  - name: a
  - name: b-2
    address: 10.0.0.2
links:
  - between: [a, b-2]
    profile: lossy
    seed: 7
    mtu: 9000
    set: { loss: 2%, delay: 40ms }
    backward: { delay: 10ms }
    changes:
      - { at: 5s, set: { loss: 5% } }
      - { at: 9s, forward: { delay: 1ms } }
    nat: { inside: b-2, at: [2s, 4s] }
";

#[test]
fn a_mesh_file_says_what_it_means() {
    let plan = parse(WHOLE, "weftsim-1").unwrap();
    assert_eq!(plan.nodes[0].namespace, "weftsim-1-a");
    assert_eq!(plan.nodes[0].address, Ipv4Addr::new(10, 77, 0, 1));
    assert_eq!(plan.nodes[1].address, Ipv4Addr::new(10, 0, 0, 2));
    let link = &plan.links[0].plan;
    assert_eq!((link.seed, link.mtu), (7, 9000));
    assert_eq!(link.forward.spec.delay, 40 * MS);
    assert_eq!(link.backward.spec.delay, 10 * MS);
    assert_eq!(link.backward.spec.loss, Loss::Bernoulli(0.02));
    let [first, second] = &link.forward.changes[..] else {
        panic!("two changes")
    };
    assert_eq!(first.at, 5000 * MS);
    assert_eq!(first.spec.loss, Loss::Bernoulli(0.05));
    assert_eq!(
        (second.spec.loss, second.spec.delay),
        (Loss::Bernoulli(0.05), MS),
        "on top of the change before"
    );
    assert_eq!(link.backward.changes[1].spec.delay, 10 * MS);
    let nat = link.nat.as_ref().unwrap();
    assert_eq!(nat.inside, Side::B);
    assert_eq!(nat.rebinding, Rebinding::At(vec![2000 * MS, 4000 * MS]));
}

#[test]
fn the_examples_are_meshes() {
    for text in [
        include_str!("../../examples/two-machines.yaml"),
        include_str!("../../examples/three.yaml"),
    ] {
        parse(text, "weftsim-1").unwrap();
    }
}

#[test]
fn the_reference_in_the_documentation_is_a_mesh() {
    let page = include_str!("../../../docs/netsim.md");
    let (_, block) = page.split_once("```yaml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let plan = parse(block, "weftsim-1").unwrap();
    assert_eq!(plan.links[0].plan.forward.changes.len(), 2);
}

#[test]
fn mistakes_are_refused_at_their_place() {
    let with = |from: &str, to: &str| {
        let changed = WHOLE.replacen(from, to, 1);
        assert_ne!(changed, WHOLE, "the test replaces something");
        parse(&changed, "weftsim-1").unwrap_err()
    };
    for (from, to, text) in [
        ("lossy", "losy", "8:14: "),
        ("lossy", "losy", "near it are: lossy"),
        ("loss: 2%", "loss: 130%", "more than all packets"),
        ("delay: 40ms", "delay: -40ms", "negative"),
        ("seed: 7", "sed: 7", "sed"),
        ("mtu: 9000", "mtu: 10", "MTU of 10"),
        ("inside: b-2", "inside: c", "no end of this link"),
        ("name: b-2", "name: c", "the node 'b-2'"),
        ("name: a\n", "name: A\n", "cannot name a node"),
        ("at: 9s", "at: 4s", "change 1"),
        ("at: [2s, 4s]", "at: [4s, 2s]", "rebinding 1"),
        ("at: [2s, 4s]", "at: [4s], every: 1s", "either"),
        ("5%", "lots", "'lots' is no share"),
        ("nodes:", "knots:", "knots"),
    ] {
        let error = with(from, to);
        assert!(
            error.contains(text),
            "{from} as {to}: '{error}' says '{text}'"
        );
    }
    assert!(parse("", "x").is_err());
    let many: String = (0..65).map(|n| format!("- name: n{n}\n")).collect();
    assert!(
        parse(&format!("nodes:\n{many}"), "x")
            .unwrap_err()
            .contains("too many")
    );
}

#[test]
fn a_command_finds_names_addresses_and_the_words_to_run_there() {
    let variables = variables(&parse(WHOLE, "weftsim-1").unwrap());
    assert_eq!(variables["WEFT_NODES"], "a b-2");
    assert_eq!(variables["WEFT_NS_A"], "weftsim-1-a");
    assert_eq!(variables["WEFT_IP_B_2"], "10.0.0.2");
    assert_eq!(variables["WEFT_IN_B_2"], "ip netns exec weftsim-1-b-2");
}
