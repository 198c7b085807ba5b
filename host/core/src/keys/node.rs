//! The identity of a step in a run.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::number;
use crate::wit::names::is_snake;

/// A step in a run: the name of a declared step, and a path of indices. Cheap to clone.
///
/// The path is empty for a step that runs once. The indices, the outermost first, distinguish the elements of a map or
/// the rounds of a loop. The text form is `name`, `name[3]` or `name[3][0]`.
///
/// Nodes are ordered by name, then by path. Indices compare as numbers, and a path comes before its extensions.
#[derive(Clone)]
pub struct NodeId {
    text: Arc<str>,
    /// The length of the name in `text`, in bytes; the indices follow.
    name: usize,
}

impl NodeId {
    /// The node of a step that runs once.
    #[must_use]
    pub fn of_step(name: &str) -> Self {
        Self { text: name.into(), name: name.len() }
    }

    /// The name of the declared step.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.get(..self.name).unwrap_or(&self.text)
    }

    /// The indices, the outermost first.
    pub fn path(&self) -> impl Iterator<Item = u32> {
        let indices = self.text.get(self.name..).unwrap_or_default();
        indices.split(['[', ']']).filter_map(number)
    }

    /// Whether the node has no index, and so is the only node of its step.
    #[must_use]
    pub fn is_of_step(&self) -> bool {
        self.text.len() == self.name
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The text is not a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid step of a run: expected the name of a step, and maybe indices, as in `name[3]`")]
pub struct BadNodeId(String);

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, BadNodeId> {
        let bad = || BadNodeId(text.chars().take(80).collect());
        let (name, indices) = text.find('[').map_or((text, ""), |at| text.split_at(at));
        if !is_snake(name) {
            return Err(bad());
        }
        if indices.is_empty() {
            return Ok(Self::of_step(name));
        }
        let inner = indices.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(bad)?;
        let is_path = inner.split("][").all(|index| number(index).is_some());
        if is_path { Ok(Self { text: text.into(), name: name.len() }) } else { Err(bad()) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

// Each node has one spelling, so that equal texts mean equal nodes.
impl PartialEq for NodeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NodeId {}

impl Hash for NodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name()).then_with(|| self.path().cmp(other.path()))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for NodeId {
    fn eq(&self, other: &str) -> bool {
        &*self.text == other
    }
}

impl PartialEq<&str> for NodeId {
    fn eq(&self, other: &&str) -> bool {
        &*self.text == *other
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl JsonSchema for NodeId {
    fn schema_name() -> Cow<'static, str> {
        "node_id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[a-z][a-z0-9_]*(\[[0-9]+\])*$" })
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn every_node_is_read_as_it_is_written() {
        let numbers = [0, 1, 9, 10, 4_000_000_000, u32::MAX];
        let mut paths: Vec<Vec<u32>> = vec![vec![]];
        for _ in 0..3 {
            let longer = |path: &Vec<u32>| numbers.map(|n| path.iter().copied().chain([n]).collect());
            paths.extend(paths.iter().flat_map(longer).collect::<Vec<Vec<u32>>>());
        }
        for name in ["a", "detect_faces", "step_0"] {
            for path in &paths {
                let text = name.to_owned() + &path.iter().map(|n| format!("[{n}]")).collect::<String>();
                let read = node(&text);
                assert_eq!((read.name(), read.as_str()), (name, text.as_str()));
                assert_eq!((&read.path().collect::<Vec<_>>(), read.is_of_step()), (path, path.is_empty()));
                assert_eq!(read.to_string(), text);
                assert_eq!(serde_json::to_string(&read).unwrap(), format!("{text:?}"), "a text in JSON");
                assert_eq!(serde_json::from_str::<NodeId>(&format!("{text:?}")).unwrap(), read);
            }
        }
        assert_eq!(NodeId::of_step("a"), node("a"));
    }

    #[test]
    fn nothing_else_is_a_node() {
        let bad = [
            "",
            "A",
            "a-b",
            "a:b",
            "a/b",
            "[0]",
            "a[",
            "a[]",
            "a]",
            "a[0",
            "a0]",
            "a[0]]",
            "a[[0]]",
            "a[0]b",
            "a[0] ",
            "a[+1]",
            "a[01]",
            "a[-1]",
            "a[4294967296]",
            "a[0][]",
            "a[0]x[1]",
            "a[0,1]",
            "a [0]",
            "_a",
            "a[0][1",
        ];
        for text in bad {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
            assert!(serde_json::from_value::<NodeId>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_are_in_the_order_of_their_indices() {
        let ordered = ["a", "a[0]", "a[0][10]", "a[2]", "a[2][0]", "a[10]", "a_b", "a_b[1]", "ab", "b"].map(node);
        let mut nodes = ordered.to_vec();
        nodes.reverse();
        nodes.sort();
        assert_eq!(nodes, ordered);
    }
}
