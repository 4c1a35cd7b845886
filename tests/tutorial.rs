//! The README's ten minutes, done as they are written: its own lines, on two machines.
//!
//! A machine is a network namespace with a mount namespace of its own, so that the default state directory,
//! ports and addresses are the README's; a third one is the switch between them. Needs root and iproute2.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stand outside Env"
)]

mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use support::{SOON, ended, eventually};
use tempfile::TempDir;

/// A line of a `console` block that somebody types, or one that they then read.
#[derive(Debug, PartialEq)]
enum Line {
    Typed { machine: char, text: String },
    Read(String),
}

/// The lines of the section's `console` blocks, here-documents kept together.
fn script(readme: &str) -> Vec<Line> {
    let section = readme
        .split("## Ten minutes on two machines")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the README has the tutorial");
    let mut lines = Vec::new();
    let (mut inside, mut until) = (false, None);
    for line in section.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            add(&mut lines, &mut until, line);
        }
    }
    lines
}

fn add(lines: &mut Vec<Line>, until: &mut Option<String>, line: &str) {
    if let (Some(end), Some(Line::Typed { text, .. })) = (until.as_ref(), lines.last_mut()) {
        write!(text, "\n{line}").unwrap();
        if line == end {
            *until = None;
        }
        return;
    }
    match line.split_once("$ ") {
        Some((machine, text)) if machine.len() == 1 => {
            *until = text
                .split_once("<<'")
                .map(|(_, end)| end.trim_end_matches('\'').to_owned());
            let machine = machine.chars().next().unwrap();
            lines.push(Line::Typed {
                machine,
                text: text.to_owned(),
            });
        }
        _ if line.is_empty() => {}
        _ => lines.push(Line::Read(line.to_owned())),
    }
}

/// Two machines on a switch, and what runs on them.
struct Lab {
    dir: TempDir,
    id: u32,
    /// Hold the machines' namespaces.
    machines: Vec<(char, Child)>,
    /// Commands that go on.
    running: Vec<(String, Child, Arc<Mutex<String>>)>,
}

fn ip(args: &str) {
    let out = Command::new("ip")
        .args(args.split(' '))
        .output()
        .expect("iproute2 is installed");
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Lab {
    fn new() -> Self {
        let id = std::process::id();
        let mut lab = Self {
            dir: tempfile::tempdir().unwrap(),
            id,
            machines: Vec::new(),
            running: Vec::new(),
        };
        let switch = lab.namespace('s');
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for (machine, addr) in [('A', "10.0.0.1"), ('B', "10.0.0.2")] {
            lab.add_machine(machine, addr);
        }
        lab
    }

    fn namespace(&self, name: char) -> String {
        format!("weft-tut-{}-{name}", self.id)
    }

    fn add_machine(&mut self, machine: char, addr: &str) {
        let (ns, switch) = (self.namespace(machine), self.namespace('s'));
        ip(&format!("netns add {ns}"));
        ip(&format!("-n {ns} link set lo up"));
        ip(&format!(
            "link add eth0 netns {ns} type veth peer name port{machine} netns {switch}"
        ));
        ip(&format!("-n {switch} link set port{machine} master br0"));
        ip(&format!("-n {switch} link set port{machine} up"));
        ip(&format!("-n {ns} addr add {addr}/24 dev eth0"));
        ip(&format!("-n {ns} link set eth0 up"));
        let home = self.dir.path().join(machine.to_string());
        std::fs::create_dir(&home).unwrap();
        // `scp` between machines is a copy between their folders here; `weft` is this build's.
        let bin = self.dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let weft = bin.join("weft");
        if !weft.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &weft).unwrap();
            let scp = format!(
                "#!/bin/sh\ncp \"$1\" {}/${{2%:}}/\n",
                self.dir.path().display()
            );
            std::fs::write(bin.join("scp"), scp).unwrap();
            ok(Command::new("chmod").arg("755").arg(bin.join("scp")));
        }
        let mut holder = Command::new("ip")
            .args([
                "netns",
                "exec",
                &ns,
                "unshare",
                "--mount",
                "--propagation",
                "private",
            ])
            .args([
                "sh",
                "-c",
                "mount -t tmpfs tmpfs /var/lib && echo held && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        holder
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut held)
            .expect("the machine's own /var/lib");
        self.machines.push((machine, holder));
    }

    fn command(&self, machine: char, text: &str) -> Command {
        let (_, holder) = self
            .machines
            .iter()
            .find(|(name, _)| *name == machine)
            .expect("A or B");
        let mut command = Command::new("nsenter");
        command
            .args(["-m", "-n", "-t", &holder.id().to_string()])
            .args(["bash", "-c", text])
            .current_dir(self.dir.path().join(machine.to_string()))
            .env(
                "PATH",
                format!(
                    "{}/bin:{}",
                    self.dir.path().display(),
                    std::env::var("PATH").unwrap()
                ),
            )
            .stdin(Stdio::null());
        command
    }

    /// Types a command that ends, and gives what it printed.
    fn run(&self, machine: char, text: &str) -> String {
        let mut command = self.command(machine, text);
        let out = finished(&mut command)
            .unwrap_or_else(|| panic!("{machine}$ {text} does not end\n{}", self.logs()));
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{machine}$ {text}\n{printed}{errors}\n{}",
            self.logs()
        );
        printed
    }

    /// Types a command that goes on, and waits for `sign` in what it prints.
    fn start(&mut self, machine: char, text: &str, sign: &str) {
        let text = text.trim_end_matches('&').trim_end();
        let mut child = self
            .command(machine, &format!("exec {text} 2>&1"))
            // Dies with the test, however that ends.
            .env("WEFT_DEMO_PARENT", self.id.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (child.stdout.take().unwrap(), printed.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                to.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        self.running
            .push((format!("{machine}$ {text}"), child, printed.clone()));
        eventually(&format!("'{sign}' from {machine}$ {text}"), || {
            printed.lock().unwrap().contains(sign).then_some(())
        });
    }

    fn logs(&self) -> String {
        let logs = self
            .running
            .iter()
            .map(|(name, _, log)| format!("{name}\n{}", log.lock().unwrap()));
        logs.collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.logs());
        }
        for (_, child, _) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (_, holder) in &mut self.machines {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        for name in ['A', 'B', 's'] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(name)])
                .output();
        }
    }
}

/// What a command printed, if it ends: the longest waits of the tutorial's own are a minute.
fn finished(command: &mut Command) -> Option<std::process::Output> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ended(&mut child, 4 * SOON).or_else(|| {
        let _ = child.kill();
        None
    })?;
    Some(child.wait_with_output().unwrap())
}

fn ok(command: &mut Command) {
    let mut child = command.spawn().unwrap();
    assert!(
        ended(&mut child, SOON).is_some_and(|status| status.success()),
        "{command:?}"
    );
}

fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]
        .iter()
        .any(|path| Path::new(path).exists());
    let possible = root && tools;
    assert!(
        possible || std::env::var_os("CI").is_none(),
        "in CI the tutorial is run: this needs root and iproute2"
    );
    possible
}

#[test]
fn the_readmes_ten_minutes_work_as_they_are_written() {
    if !possible() {
        return;
    }
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let lines = script(&std::fs::read_to_string(readme).unwrap());
    assert!(lines.len() > 15, "the tutorial is there: {lines:?}");
    let mut lab = Lab::new();
    let (mut pin, mut printed) = (String::new(), String::new());
    for line in lines {
        match line {
            Line::Typed { machine, text } => {
                let text = text.replace("sha256:…", &pin);
                let sign = match text.split(' ').take(2).collect::<Vec<_>>()[..] {
                    ["weft", "control"] => Some("control node ready"),
                    ["weft", "sidecar"] => Some(" ready service="),
                    ["python3", _] => Some("Serving HTTP"),
                    _ => None,
                };
                if let Some(sign) = sign {
                    let text = text.replace("python3 ", "python3 -u ");
                    lab.start(machine, &text, sign);
                    continue;
                }
                printed = lab.run(machine, &text).replace('\r', "");
                if text == "weft init" {
                    let word = printed
                        .split_whitespace()
                        .find(|word| word.starts_with("sha256:"));
                    pin = word.expect("init prints the pin").to_owned();
                }
            }
            Line::Read(expected) => {
                let seen = printed.lines().any(|line| fits(line, &expected));
                assert!(seen, "expected '{expected}' in\n{printed}\n{}", lab.logs());
            }
        }
    }
    let status = lab.run('A', "weft status");
    assert!(
        status.contains("invoices.default") && status.contains("orders.default"),
        "{status}"
    );
    assert!(
        !status.contains("127.0.0.1"),
        "every sidecar is registered where the others reach it: {status}"
    );
}

/// Whether a line is as the README shows it; `…` stands for anything.
fn fits(line: &str, shown: &str) -> bool {
    let mut rest = line;
    for (index, part) in shown.split('…').enumerate() {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if index > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    shown.ends_with('…') || rest.is_empty()
}

#[test]
fn what_is_typed_and_what_is_read_are_told_apart() {
    let readme = "x\n## Ten minutes on two machines\n\n```console\nA$ cat > f <<'END'\na: $ b\nEND\nB$ curl x\nHTTP/1.1 200 OK\n```\n## Next\n```console\nA$ no\n```\n";
    let typed = |machine, text: &str| Line::Typed {
        machine,
        text: text.to_owned(),
    };
    assert_eq!(
        script(readme),
        [
            typed('A', "cat > f <<'END'\na: $ b\nEND"),
            typed('B', "curl x"),
            Line::Read("HTTP/1.1 200 OK".to_owned()),
        ]
    );
    assert!(fits(
        "proxy-status: a; error=b; details=c",
        "proxy-status: a; error=b; …"
    ));
    assert!(fits("a 1 ms b", "a … b") && !fits("b a", "a") && !fits("a b c", "a b"));
}
