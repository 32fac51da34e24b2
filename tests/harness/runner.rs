//! Clients in other languages: one process per client library, which stays while the suite runs and is told one case at a time.
//!
//! A case goes in as one line of JSON on its standard input: `{"case": .., "bootstrap": .., "name": .., "expected": {..}}`, where `name` is a prefix for topics and groups that no
//! other case uses and `expected` holds the values of `differences.toml`. The answer is one line on its standard output that begins with `RESULT ` and holds `{"ok": true}` or
//! `{"ok": false, "error": ".."}`; any other output is its log. So a JVM starts once for all Java cases, and every case is a test with its own name here.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::suite::{SharedBroker, trial};
use crate::{differences, places};

/// More than any case needs beside a busy neighbour; a client that hangs is ended and started anew for the next case.
const CASE_LIMIT: Duration = Duration::from_secs(240);

/// A client library, and how to start the program that speaks for it.
pub struct Client {
    pub name: &'static str,
    pub command: fn() -> Command,
    /// The lists of cases that this client can run; those that it has no call for are left out.
    pub cases: &'static [&'static [&'static str]],
}

impl Client {
    pub fn trials(&'static self, shared: &SharedBroker) -> Vec<Trial> {
        let runner = Arc::new(Mutex::new(Runner { client: self, running: None }));
        let one = |case: &'static str| {
            let runner = runner.clone();
            trial(format!("clients::{}::{case}", self.name), shared, move |broker| {
                // A case that failed leaves the runner usable: what it holds is replaced before it is used again.
                let mut runner = runner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                runner.run(case, broker).map_err(Failed::from)
            })
        };
        self.cases.iter().flat_map(|list| list.iter()).map(|case| one(case)).collect()
    }
}

struct Runner {
    client: &'static Client,
    running: Option<Running>,
}

struct Running {
    process: Child,
    input: ChildStdin,
    results: Receiver<Value>,
    log: PathBuf,
}

impl Runner {
    fn run(&mut self, case: &str, broker: &Broker) -> Result<(), String> {
        let client = self.client;
        let running = self.running.get_or_insert_with(|| Running::start(client));
        let order = json!({
            "case": case,
            "bootstrap": broker.bootstrap(),
            "name": format!("{}-{}", client.name, case).replace('_', "-"),
            "expected": differences::expected_of_all(),
        });
        let sent = writeln!(running.input, "{order}").and_then(|()| running.input.flush());
        let outcome = match sent {
            Ok(()) => running.results.recv_timeout(CASE_LIMIT),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match outcome {
            Ok(result) if result["ok"] == true => Ok(()),
            Ok(result) => Err(format!("{}\nits log: {}", result["error"].as_str().unwrap_or("no reason given"), running.log.display())),
            Err(failure) => {
                let log = running.log.clone();
                self.running = None;
                let what = match failure {
                    RecvTimeoutError::Timeout => format!("no result after {CASE_LIMIT:?}"),
                    RecvTimeoutError::Disconnected => "it ended before its result".to_string(),
                };
                Err(format!("{}: {what}; its log, {}:\n{}", client.name, log.display(), std::fs::read_to_string(&log).unwrap_or_default()))
            }
        }
    }
}

impl Running {
    fn start(client: &Client) -> Running {
        let log = places::scratch().join(format!("{}.log", client.name));
        let mut file = File::create(&log).expect("a log can be made");
        let mut command = (client.command)();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file.try_clone().expect("a file can be shared"));
        let mut process =
            command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; `scripts/test --install` brings what the clients need"));
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (send, results) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match line.strip_prefix("RESULT ").and_then(|result| serde_json::from_str(result).ok()) {
                    // Nobody waits for the result of a runner that was given up.
                    Some(result) => drop(send.send(result)),
                    None => drop(writeln!(file, "{line}")),
                }
            }
        });
        Running { process, input, results, log }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
