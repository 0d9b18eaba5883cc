//! What a target says of itself (`guests/nt/state.c`), and how answers are judged by it.

use serde_json::Value;

/// A target's own words.
#[derive(Default)]
pub struct Truth {
    /// PIDs, each with its executable where the target's program could ask.
    pub processes: Vec<(u64, String)>,
    /// Base addresses of drivers, with their names.
    pub drivers: Vec<(u64, String)>,
    /// The process that stays.
    pub own: u64,
    /// Where the code of its program lies.
    pub code: u64,
    /// The time when it said so, in seconds.
    pub time: i64,
}

impl Truth {
    /// Reads what the program printed.
    pub fn parse(text: &str) -> Self {
        let mut truth = Self::default();
        for line in text.lines() {
            let mut words = line.trim().splitn(3, ' ');
            let (kind, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let name = words.next().unwrap_or_default().to_owned();
            match kind {
                "process" => truth.processes.push((number.parse().unwrap_or(u64::MAX), name)),
                "driver" => truth.drivers.push((u64::from_str_radix(number, 16).unwrap_or(0), name)),
                "code" => truth.code = u64::from_str_radix(number, 16).unwrap_or(0),
                "self" => truth.own = number.parse().unwrap_or(0),
                "time" => truth.time = number.parse().unwrap_or(0),
                _ => {}
            }
        }
        truth
    }

    /// Whether the processor was paused in the process that stays: in a process, at its code.
    pub fn is_own(&self, paused: Paused) -> bool {
        paused.process && paused.pc.abs_diff(self.code) < 0x1_0000
    }

    /// The questions about it: program, inputs, and what is right.
    pub fn questions(&self) -> Vec<Question<'_>> {
        let mut all: Vec<Question<'_>> = ["getpid", "pslist", "lsmod", "gettime"]
            .map(|program| Question { program, input: None, name: "" })
            .to_vec();
        let named = |list: &'_ [(u64, String)]| -> Vec<usize> {
            let known: Vec<usize> = (0..list.len()).filter(|&at| !list[at].1.is_empty()).collect();
            let wanted = [0, known.len() / 2, known.len().saturating_sub(1)];
            wanted.iter().filter_map(|&at| known.get(at).copied()).collect()
        };
        for at in named(&self.processes) {
            let (pid, name) = &self.processes[at];
            all.push(Question { program: "getpsfile", input: Some(("pid", pid.to_string())), name });
        }
        for at in named(&self.drivers) {
            let (base, name) = &self.drivers[at];
            all.push(Question { program: "getdrvfile", input: Some(("base", format!("{base:#x}"))), name });
        }
        all
    }
}

/// Where the processor was paused.
#[derive(Clone, Copy)]
pub struct Paused {
    /// In a process, not in the system.
    pub process: bool,
    /// At this instruction.
    pub pc: u64,
}

/// One question.
#[derive(Clone)]
pub struct Question<'t> {
    /// The program.
    pub program: &'static str,
    /// Its input.
    pub input: Option<(&'static str, String)>,
    /// The name that is the right answer, where it is one.
    pub name: &'t str,
}

impl Question<'_> {
    /// Whether outputs are right; `own`: the processor was paused in the process that stays;
    /// `elapsed`: seconds since the target said its time.
    pub fn is_answered(&self, outputs: &Value, truth: &Truth, own: bool, elapsed: i64) -> bool {
        let list = |name: &str| {
            let mut list: Vec<u64> =
                outputs[name].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
            list.sort_unstable();
            list
        };
        let sorted = |list: &[(u64, String)]| {
            let mut numbers: Vec<u64> = list.iter().map(|it| it.0).collect();
            numbers.sort_unstable();
            numbers
        };
        match self.program {
            "getpid" if own => outputs["pid"] == truth.own,
            "getpid" => {
                outputs["pid"].as_u64().is_some_and(|pid| truth.processes.iter().any(|it| it.0 == pid))
            }
            "pslist" => list("pids") == sorted(&truth.processes),
            "lsmod" => list("bases") == sorted(&truth.drivers),
            "gettime" => {
                let past = outputs["sec"].as_i64().map(|sec| sec - truth.time);
                past.is_some_and(|past| (0..=elapsed + 2).contains(&past))
            }
            "getpsfile" => outputs["path"] == self.name,
            _ => outputs["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(self.name)),
        }
    }
}
