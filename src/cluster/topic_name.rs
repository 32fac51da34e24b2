//! Rules for the names of topics, with the words in which Kafka refuses them.

/// Directories are named `<topic>-<partition>.<uuid>-delete` at their longest, which must fit into 255 bytes.
const NAME_LENGTH_MAX: usize = 249;

/// Why a name may not be given to a topic; INVALID_TOPIC_EXCEPTION carries the sentence.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > NAME_LENGTH_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}")
    } else if !name.bytes().all(is_name_byte) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// What two names share that differ only in `.` and `_`: metrics write both alike, so the second may not be made. None for a name with neither.
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences are those of Kafka 4.4.0, as its admin client prints them.
    #[test]
    fn refused_names_say_why() {
        assert_eq!(check_topic_name("a.B_c-9"), Ok(()));
        assert_eq!(check_topic_name(&"x".repeat(249)), Ok(()));
        let reason = |name: &str| check_topic_name(name).expect_err("refused");
        assert_eq!(reason(""), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(reason("."), "Topic name is invalid: '.' is not allowed");
        assert_eq!(reason(".."), "Topic name is invalid: '..' is not allowed");
        assert_eq!(
            reason("a b"),
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        );
        assert!(reason("ü").contains("one or more characters"));
        assert!(reason(&"x".repeat(250)).ends_with("is longer than the max allowed length 249"));
    }

    #[test]
    fn names_collide_in_dots_and_underscores() {
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
        assert_ne!(collision_key("a.b"), collision_key("a.c"));
        assert_eq!(collision_key("ab"), None);
    }
}
