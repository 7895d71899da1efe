//! What a metadata key can hold.

/// Declares the value types once: variant, Rust type, number in the file, name.
macro_rules! types {
    ($($name:ident($type:ty) = $id:literal $word:literal,)*) => {
        /// The value of a metadata key.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[allow(missing_docs, reason = "each variant is the Rust type of the same name")]
        pub enum Value { $($name($type),)* Array(Array) }

        /// The elements of an array, all of one type.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[allow(missing_docs, reason = "each variant is the Rust type of the same name")]
        pub enum Array { $($name(Vec<$type>),)* Array(Vec<Array>) }

        impl Value {
            /// The type's number in a GGUF file.
            pub fn type_id(&self) -> u32 {
                match self { $(Self::$name(_) => $id,)* Self::Array(_) => 9 }
            }

            /// The type's name, such as `u32`.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => $word,)* Self::Array(_) => "array" }
            }
        }

        impl Array {
            /// The element type's number in a GGUF file.
            pub fn type_id(&self) -> u32 {
                match self { $(Self::$name(_) => $id,)* Self::Array(_) => 9 }
            }

            /// The element type's name, such as `u32`.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => $word,)* Self::Array(_) => "array" }
            }

            /// How many elements.
            pub fn len(&self) -> usize {
                match self { $(Self::$name(items) => items.len(),)* Self::Array(items) => items.len() }
            }
        }
    };
}

types! {
    U8(u8) = 0 "u8",
    I8(i8) = 1 "i8",
    U16(u16) = 2 "u16",
    I16(i16) = 3 "i16",
    U32(u32) = 4 "u32",
    I32(i32) = 5 "i32",
    F32(f32) = 6 "f32",
    Bool(bool) = 7 "bool",
    String(String) = 8 "string",
    U64(u64) = 10 "u64",
    I64(i64) = 11 "i64",
    F64(f64) = 12 "f64",
}

impl Array {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as integers; none where one is not an integer or does not fit.
    fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        fn fit<T: TryFrom<i128>>(items: &[impl Copy + Into<i128>]) -> Option<Vec<T>> {
            items.iter().map(|&n| T::try_from(n.into()).ok()).collect()
        }
        match self {
            Self::U8(items) => fit(items),
            Self::I8(items) => fit(items),
            Self::U16(items) => fit(items),
            Self::I16(items) => fit(items),
            Self::U32(items) => fit(items),
            Self::I32(items) => fit(items),
            Self::U64(items) => fit(items),
            Self::I64(items) => fit(items),
            _ => None,
        }
    }

    /// The elements as `i32`; none where one is not an integer or does not fit.
    pub fn i32s(&self) -> Option<Vec<i32>> {
        self.integers()
    }

    /// The elements rounded to `f32`; none where they are not numbers.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        match self {
            Self::F32(items) => Some(items.clone()),
            Self::F64(items) => Some(items.iter().map(|&x| x as f32).collect()),
            _ => Some(self.integers::<i128>()?.into_iter().map(|n| n as f32).collect()),
        }
    }
}

impl Value {
    /// An integer of any width.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            _ => return None,
        })
    }

    /// A float of either width, or an integer.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => self.integer().map(|n| n as f64),
        }
    }

    /// What it is, for an error: "the i32 -1", "a string", "an array of 3 f32".
    pub fn describe(&self) -> String {
        match self {
            Self::String(_) => "a string".to_owned(),
            Self::Bool(b) => format!("the bool {b}"),
            Self::Array(array) => format!("an array of {} {}", array.len(), array.type_name()),
            Self::F32(x) => format!("the f32 {x}"),
            Self::F64(x) => format!("the f64 {x}"),
            _ => format!("the {} {}", self.type_name(), self.integer().unwrap_or_default()),
        }
    }
}

/// A string from a file, safe to print in a line: control characters escaped, cut after `limit` characters.
pub(crate) fn shown(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown
}
