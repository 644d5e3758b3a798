//! Request methods (RFC 9110 9).

/// A method, as far as the proxy and the metrics tell methods apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    /// Any other method.
    Other,
}

impl Method {
    /// All of them, in the order of their declaration.
    pub const ALL: [Method; 9] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Patch,
        Method::Options,
        Method::Trace,
        Method::Other,
    ];

    /// The method of that name. Names of methods are case-sensitive.
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            _ => Method::Other,
        }
    }

    /// The name in requests and metrics; `OTHER` stands for all methods that have no name here.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Other => "OTHER",
        }
    }

    /// Whether the method changes nothing (RFC 9110 9.2.1).
    pub fn is_safe(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Options | Method::Trace => true,
            Method::Post | Method::Put | Method::Delete | Method::Patch | Method::Other => false,
        }
    }

    /// Whether the effect of the method does not grow by repeating it (RFC 9110 9.2.2).
    pub fn is_idempotent(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Options | Method::Trace | Method::Put | Method::Delete => true,
            Method::Post | Method::Patch | Method::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_names_and_numbers() {
        for (at, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!((method as usize, Method::of(method.as_str())), (at, method));
        }
        assert_eq!(Method::of("get"), Method::Other);
    }
}
