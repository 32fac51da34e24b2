//! What can go wrong in a run, each with an exit code of its own and one line that says it.

use std::fmt;
use std::process::ExitCode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something of the machine at hand: a file, a thread, a child process.
    Machine(String),
    /// A workload, a suite or an argument that asks for what cannot be.
    Settings(String),
    /// Nobody answers at the address.
    Unreachable(String),
    /// The topic exists with other partitions or settings.
    TopicDiffers(String),
    /// The client itself did not keep the schedule: its figures say nothing of the broker.
    ClientTooSlow(String),
    /// The broker answered with errors: a full disk is one.
    Refused(String),
    /// The broker ended, or stopped answering, in the middle.
    BrokerGone(String),
    /// Acknowledged records were missing, twice, out of order or changed.
    NotReadBack(String),
    /// The machine was too busy with other things, round after round.
    Disturbed(String),
    /// Somebody asked to be told by the exit code, and a target was missed.
    TargetMissed(String),
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Machine(_) => 1,
            // 2 is what the parser of arguments exits with.
            Failure::Settings(_) => 3,
            Failure::Unreachable(_) => 4,
            Failure::TopicDiffers(_) => 5,
            Failure::ClientTooSlow(_) => 6,
            Failure::Refused(_) => 7,
            Failure::BrokerGone(_) => 8,
            Failure::NotReadBack(_) => 9,
            Failure::Disturbed(_) => 10,
            Failure::TargetMissed(_) => 11,
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// Of the machine: `what` failed with `error`.
    pub fn machine(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
        let what = what.to_string();
        move |error| Failure::Machine(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Machine(why) => f.write_str(why),
            Failure::Settings(why) => f.write_str(why),
            Failure::Unreachable(why) => write!(f, "broker unreachable: {why}"),
            Failure::TopicDiffers(why) => write!(f, "topic exists with other settings: {why}"),
            Failure::ClientTooSlow(why) => write!(f, "the client cannot keep this rate: {why}"),
            Failure::Refused(why) => write!(f, "the broker refused: {why}"),
            Failure::BrokerGone(why) => write!(f, "the broker is gone: {why}"),
            Failure::NotReadBack(why) => write!(f, "READ BACK FAILED: {why}"),
            Failure::Disturbed(why) => write!(f, "the machine was disturbed: {why}"),
            Failure::TargetMissed(why) => write!(f, "target missed: {why}"),
        }
    }
}

impl std::error::Error for Failure {}
