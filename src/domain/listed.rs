//! Arrays of any length as lists: serde knows arrays up to 32. For `#[serde(with = "…")]`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the array as a list.
///
/// # Errors
/// As the serializer says.
pub fn serialize<T: Serialize, S: Serializer, const N: usize>(all: &[T; N], to: S) -> Result<S::Ok, S::Error> {
    all.as_slice().serialize(to)
}

/// Reads a list of exactly that many.
///
/// # Errors
/// As the deserializer says, or there are fewer or more.
pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
    from: D,
) -> Result<[T; N], D::Error> {
    let all = Vec::<T>::deserialize(from)?;
    all.try_into().map_err(|all: Vec<T>| D::Error::custom(format!("{} where {N} are expected", all.len())))
}
