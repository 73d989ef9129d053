//! Attributes of operators as named values: the one form in which an operator is printed, stored and made by name.

use crate::base::{DType, Result, Tensor};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The value of one attribute.
#[derive(Clone, Debug)]
pub enum AttrValue {
    Int(i64),
    Float(f32),
    Bool(bool),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strs(Vec<String>),
    DType(DType),
    Tensor(Arc<Tensor>),
    /// A graph that the operator runs. What is inside is known to the network's code only.
    Graph(Arc<dyn Any + Send + Sync>),
}

/// Attributes by name, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Attrs(pub BTreeMap<String, AttrValue>);

impl Attrs {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set<T: AttrField>(&mut self, name: &str, value: &T) {
        if let Some(v) = value.to_attr() {
            self.0.insert(name.to_string(), v);
        }
    }

    /// Reads a field that must be there unless its type has an absent form (`Option`).
    pub fn get<T: AttrField>(&self, name: &str) -> Result<T> {
        T::from_attr(self.0.get(name))
            .ok_or_else(|| crate::err!(InvalidArgument, "attribute {name}: missing or of the wrong type"))
    }
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrValue::Int(v) => write!(f, "{v}"),
            AttrValue::Float(v) => write!(f, "{v:?}"),
            AttrValue::Bool(v) => write!(f, "{v}"),
            AttrValue::Str(v) => write!(f, "{v:?}"),
            AttrValue::Ints(v) => write!(f, "{v:?}"),
            AttrValue::Floats(v) => write!(f, "f{v:?}"),
            AttrValue::Strs(v) => write!(f, "{v:?}"),
            AttrValue::DType(v) => write!(f, "{v}"),
            AttrValue::Tensor(v) => write!(f, "tensor {v:?}"),
            // The address tells graphs apart where attributes are compared as text.
            AttrValue::Graph(v) => write!(f, "graph {:p}", Arc::as_ptr(v).cast::<()>()),
        }
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.0.iter().enumerate() {
            write!(f, "{}{k}={v}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A Rust type that can be an attribute.
pub trait AttrField: Sized {
    /// `None` leaves the attribute out.
    fn to_attr(&self) -> Option<AttrValue>;
    /// `None` when missing or of another type.
    fn from_attr(v: Option<&AttrValue>) -> Option<Self>;
}

macro_rules! attr_field {
    ($($t:ty => $variant:ident),* $(,)?) => { $(impl AttrField for $t {
        fn to_attr(&self) -> Option<AttrValue> { Some(AttrValue::$variant(self.clone())) }
        fn from_attr(v: Option<&AttrValue>) -> Option<Self> {
            match v { Some(AttrValue::$variant(v)) => Some(v.clone()), _ => None }
        }
    })* };
}
attr_field!(i64 => Int, f32 => Float, bool => Bool, String => Str, Vec<i64> => Ints, Vec<f32> => Floats,
            Vec<String> => Strs, DType => DType, Arc<Tensor> => Tensor);

impl AttrField for usize {
    fn to_attr(&self) -> Option<AttrValue> {
        Some(AttrValue::Int(*self as i64))
    }
    fn from_attr(v: Option<&AttrValue>) -> Option<Self> {
        i64::from_attr(v).and_then(|v| usize::try_from(v).ok())
    }
}

impl<T: AttrField> AttrField for Option<T> {
    fn to_attr(&self) -> Option<AttrValue> {
        self.as_ref().and_then(|v| v.to_attr())
    }
    fn from_attr(v: Option<&AttrValue>) -> Option<Self> {
        match v {
            None => Some(None),
            some => T::from_attr(some).map(Some),
        }
    }
}

/// Makes a plain enum an attribute, stored by name: `attr_enum!{ /// doc\n pub enum Kind { Max = "max", ... } }`.
#[macro_export]
macro_rules! attr_enum {
    ($(#[$m:meta])* pub enum $name:ident { $($(#[$vm:meta])* $v:ident = $s:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vm])* $v),* }
        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$v),*];
            pub fn name(self) -> &'static str { match self { $($name::$v => $s),* } }
            pub fn from_name(s: &str) -> Option<Self> { match s { $($s => Some($name::$v),)* _ => None } }
        }
        impl $crate::base::attrs::AttrField for $name {
            fn to_attr(&self) -> Option<$crate::base::AttrValue> {
                Some($crate::base::AttrValue::Str(self.name().to_string()))
            }
            fn from_attr(v: Option<&$crate::base::AttrValue>) -> Option<Self> {
                match v { Some($crate::base::AttrValue::Str(s)) => Self::from_name(s), _ => None }
            }
        }
    };
    // With a default, which is not written and which a missing attribute stands for.
    ($(#[$m:meta])* pub enum $name:ident or $default:ident { $($(#[$vm:meta])* $v:ident = $s:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vm])* $v),* }
        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$v),*];
            pub fn name(self) -> &'static str { match self { $($name::$v => $s),* } }
            pub fn from_name(s: &str) -> Option<Self> { match s { $($s => Some($name::$v),)* _ => None } }
        }
        impl Default for $name {
            fn default() -> Self { $name::$default }
        }
        impl $crate::base::attrs::AttrField for $name {
            fn to_attr(&self) -> Option<$crate::base::AttrValue> {
                (*self != Self::default()).then(|| $crate::base::AttrValue::Str(self.name().to_string()))
            }
            fn from_attr(v: Option<&$crate::base::AttrValue>) -> Option<Self> {
                match v {
                    None => Some(Self::default()),
                    Some($crate::base::AttrValue::Str(s)) => Self::from_name(s),
                    Some(_) => None,
                }
            }
        }
    };
}

/// Declares an operator's attribute struct with conversion to and from [`Attrs`].
#[macro_export]
macro_rules! op_struct {
    ($(#[$m:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $f:ident : $t:ty),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$fm])* pub $f: $t),* }
        impl $name {
            pub fn to_attrs(&self) -> $crate::base::Attrs {
                #[allow(unused_mut)]
                let mut a = $crate::base::Attrs::new();
                $(a.set(stringify!($f), &self.$f);)*
                a
            }
            pub fn from_attrs(_a: &$crate::base::Attrs) -> $crate::base::Result<Self> {
                Ok($name { $($f: _a.get(stringify!($f))?),* })
            }
        }
    };
}
