//! Where runs did not follow the target, in words.

use engine::Departures;

/// What there is to say about it.
#[must_use]
pub fn remarks(departures: &Departures) -> Vec<String> {
    let restored = counted(&departures.restored, "pointer").map(|(pointers, first, one)| {
        let (them, lead) = if one { ("it", "leads") } else { ("them", "lead") };
        format!(
            "{pointers} in the kernel's read-only data (at {first:#x}) {lead} to code that is not the \
             kernel's; what is answered is what the kernel's own functions give, for the run had {them} \
             as in training. Somebody changed what the target's own tools see: see `virtuoso tampering`"
        )
    });
    let overruled = counted(&departures.overruled, "place").map(|(places, first, _)| {
        format!(
            "the run came to {places} (at {first:#x}) where the target's kernel jumps and training's does \
             not, or jumps elsewhere: a switch that was turned, another processor, or somebody's change. \
             What is answered is what training's code gives; a pack whose kernel's own tables are known \
             (`virtuoso modules`) follows its switches, and `virtuoso tampering` shows the places"
        )
    });
    let clocks = departures.clocks.first().map(|at| {
        format!(
            "the answer depends on a clock that a dump does not hold (read at {at:#x}): it is as of the \
             kernel's last reading of it, some time before the pause; if it is the time stamp counter, \
             --tsc gives its value"
        )
    });
    restored.into_iter().chain(overruled).chain(clocks).collect()
}

/// That somebody changed words of read-only data, which explains two answers; nothing if nobody
/// did.
#[must_use]
pub fn changed(words: &[u64]) -> Option<String> {
    let (words, first, _) = counted(words, "word")?;
    Some(format!(
        "somebody changed the target's read-only data, which no kernel writes: {words} (at {first:#x}). That \
         explains two answers; trust neither, and see `virtuoso tampering`"
    ))
}

/// How many there are, in words, the first, and whether it is the only one.
fn counted(addresses: &[u64], what: &str) -> Option<(String, u64, bool)> {
    let first = *addresses.first()?;
    Some(match addresses.len() {
        1 => (format!("a {what}"), first, true),
        count => (format!("{count} {what}s"), first, false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said() {
        assert_eq!(remarks(&Departures::default()), [""; 0]);
        let said =
            remarks(&Departures { restored: vec![0x10, 0x20], overruled: vec![0x30], clocks: vec![0x40] });
        assert!(
            said[0].starts_with("2 pointers in the kernel's read-only data (at 0x10) lead to"),
            "{said:?}"
        );
        assert!(said[1].starts_with("the run came to a place (at 0x30) where"), "{said:?}");
        assert!(said[2].contains("as of the kernel's last reading"), "{said:?}");
        assert_eq!(changed(&[]), None);
        assert!(changed(&[0x10, 0x20]).is_some_and(|it| it.contains("2 words (at 0x10)")));
    }
}
