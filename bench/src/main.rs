//! The command line of `corelane-bench`.

mod arguments;
mod compare_command;
mod start_command;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use corelane_bench::failure::Failure;
use corelane_bench::machine::Machine;
use corelane_bench::outcome::Outcome;
use corelane_bench::responder::{Faults, Responder};
use corelane_bench::workload::{Scenario, Workload};
use corelane_bench::{cores, floor_of_client, report, scenario, table};

use self::arguments::{Arguments, Command, ResponderArguments, RunArguments, SelfArguments};

fn main() -> ExitCode {
    // Before any thread is pinned.
    cores::of_process();
    let command = Arguments::parse().command;
    if cfg!(debug_assertions) && std::io::stderr().is_terminal() {
        eprintln!("corelane-bench: a development build: it is slower than what it measures");
    }
    let done = match command {
        Command::Produce(arguments) => run(&arguments, Some(Scenario::Produce)),
        Command::E2e(arguments) => run(&arguments, Some(Scenario::E2e)),
        Command::Consume(arguments) => run(&arguments, Some(Scenario::Consume)),
        Command::Mixed(arguments) => run(&arguments, Some(Scenario::Mixed)),
        Command::Fanout(arguments) => run(&arguments, Some(Scenario::Fanout)),
        Command::Connections(arguments) => run(&arguments, Some(Scenario::Connections)),
        Command::Groups(arguments) => run(&arguments, Some(Scenario::Groups)),
        Command::Transactions(arguments) => run(&arguments, Some(Scenario::Transactions)),
        Command::Run(arguments) => run(&arguments, None),
        Command::Omb(arguments) => run_omb(&arguments),
        Command::Compare(arguments) => compare_command::run(&arguments),
        Command::Start(arguments) => start_command::run(&arguments),
        Command::Own(arguments) => measure_self(&arguments),
        Command::Responder(arguments) => respond(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("corelane-bench: {failure}");
            failure.exit_code()
        }
    }
}

/// One workload against a broker that runs.
fn run(arguments: &RunArguments, scenario: Option<Scenario>) -> Result<(), Failure> {
    run_workload(arguments, &arguments.workload(scenario)?)
}

fn run_omb(arguments: &RunArguments) -> Result<(), Failure> {
    let converted = arguments.omb_workload()?;
    converted.notes.iter().for_each(|note| eprintln!("omb: {note}"));
    run_workload(arguments, &converted.workload)
}

fn run_workload(arguments: &RunArguments, workload: &Workload) -> Result<(), Failure> {
    if arguments.print_workload {
        print!("{}", toml::to_string(workload).expect("a workload is a table"));
        return Ok(());
    }
    let outcome = scenario::run(workload, &arguments.target()?)?;
    print(&outcome, arguments.json);
    if let Some(path) = &arguments.html {
        let machine = Machine::look(Path::new("."), None);
        std::fs::write(path, report::of_run(&outcome, &machine).html()).map_err(Failure::machine(path.display()))?;
    }
    outcome.failure.map_or(Ok(()), Err)
}

fn print(outcome: &Outcome, json: bool) {
    if json {
        println!("{}", outcome.to_json());
    } else {
        print!("{}", table::summary(outcome));
    }
}

fn measure_self(arguments: &SelfArguments) -> Result<(), Failure> {
    let workload = Workload {
        warm_up_seconds: 1.0,
        duration_seconds: arguments.duration,
        record_bytes: arguments.record_bytes,
        ..Workload::default()
    };
    let core = arguments.core.or_else(|| cores::of_process().first().copied());
    let target = scenario::Target {
        core,
        congestion_control: arguments.congestion_control.clone(),
        ..scenario::Target::new(([127, 0, 0, 1], 0).into())
    };
    let outcomes = floor_of_client::measure(&workload, &target)?;
    if arguments.json {
        let all: Vec<_> =
            outcomes.iter().map(|(name, outcome)| serde_json::json!({"against": name, "outcome": outcome.to_json()})).collect();
        println!("{}", serde_json::Value::from(all));
        return Ok(());
    }
    println!("The client's own floor: a process next door that answers at once and keeps nothing.");
    for (name, outcome) in &outcomes {
        println!("\n{name}:");
        print!("{}", table::summary(outcome));
    }
    outcomes.into_iter().find_map(|(_, outcome)| outcome.failure).map_or(Ok(()), Err)
}

fn respond(arguments: &ResponderArguments) -> Result<(), Failure> {
    if let Some(core) = arguments.core {
        cores::pin_this_thread(&[core])?;
    }
    let responder = Responder::bind(arguments.address, arguments.keep, arguments.spin, Faults::default())
        .map_err(Failure::machine(arguments.address))?;
    println!("ready {}", responder.address().map_err(Failure::machine("own address"))?);
    responder.run().map_err(Failure::machine("responder"))
}
