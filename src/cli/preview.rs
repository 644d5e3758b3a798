//! Runs `preview`: asks for a pass to the idle color, and shows how to use it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use super::args::{pick, who};
use super::failure::Failure;
use super::output::{Form, print, print_json};
use crate::api::Pass;
use crate::api::client::Client;
use crate::config::{Config, Proxy, Service};

/// Asks for a pass and prints it. `url` is the address at which clients reach the service; without it, the config's
/// best guess is shown.
pub(super) async fn preview(
    config: &Config,
    service: Option<&str>,
    lasting: Duration,
    url: Option<&str>,
    form: Form,
) -> Result<(), Failure> {
    let client = Client::new(&config.admin);
    let status = client.status().await?;
    let known: Vec<_> = status.services.keys().map(String::as_str).collect();
    let name = pick(service, &known).map_err(Failure::Usage)?;
    let pass = client.preview(name, lasting, &who()).await?;
    let service = config.services.iter().find(|service| service.name == name);
    let url = url.map(|url| url.trim_end_matches('/').to_owned());
    let base = url.unwrap_or_else(|| base(&config.proxy, service));
    let path = service.map_or("/", |service| &service.path_prefix);
    let Pass { service, color, token, expires, door } = &pass;
    let curl = format!("curl -H 'X-Cutover-Preview: {token}' {base}{path}");
    let (enter, leave) = (format!("{base}{door}?token={token}"), format!("{base}{door}/leave"));
    match form {
        Form::Json => print_json(&json!({ "service": service, "color": color, "token": token, "expires": expires,
            "curl": curl, "enter": enter, "leave": leave })),
        Form::Text => print(&format!(
            "{service}: {color} is idle; until {expires} this leads to it\n\n  token  {token}\n  curl   {curl}\n  \
             enter  {enter}\n  leave  {leave}\n\nWhoever has the link can use it. The browser keeps it as a cookie.\n"
        )),
    }
    Ok(())
}

/// Returns the URL at which clients reach the service, without a slash at its end.
fn base(proxy: &Proxy, service: Option<&Service>) -> String {
    let secured = proxy.redirect_to_tls.or(proxy.listen_tls.first().map(SocketAddr::port));
    let (scheme, usual) = if secured.is_some() { ("https", 443) } else { ("http", 80) };
    let first = proxy.listen.first().or(proxy.listen_tls.first());
    let port = secured.or(first.map(SocketAddr::port)).unwrap_or(usual);
    let named = service.and_then(|service| service.hosts.iter().find(|host| !host.starts_with("*.")));
    let host = match (named, first.map(SocketAddr::ip)) {
        (Some(host), _) => host.clone(),
        (None, Some(IpAddr::V4(ip))) if !ip.is_unspecified() => ip.to_string(),
        (None, Some(IpAddr::V6(ip))) if !ip.is_unspecified() => format!("[{ip}]"),
        (None, Some(_) | None) => "localhost".into(),
    };
    if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_address_is_the_one_that_clients_use() {
        for (proxy, service, want) in [
            ("", "", "http://localhost:8080"),
            ("listen = '127.0.0.1:80'", "", "http://127.0.0.1"),
            ("listen = '[::1]:81'", "", "http://[::1]:81"),
            ("", "hosts = ['*.example.com', 'a.example.com']", "http://a.example.com:8080"),
        ] {
            let text = format!("[proxy]\n{proxy}\n[service.a]\nblue = 1\ngreen = 2\n{service}\n");
            let config = Config::parse(&text, Path::new("cutover.toml")).expect("valid");
            assert_eq!(base(&config.proxy, config.services.first()), want, "{text}");
        }
    }

    #[test]
    fn with_tls_it_is_https() {
        let text = "[proxy]\nlisten = ['0.0.0.0:80']\n[service.a]\nblue = 1\ngreen = 2\nhosts = 'a.example'\n";
        let config = Config::parse(text, Path::new("cutover.toml")).expect("valid");
        let service = config.services.first();
        let (tls, redirect) = (vec!["0.0.0.0:8443".parse().unwrap()], Some(443));
        let proxy = Proxy { listen_tls: tls.clone(), ..config.proxy.clone() };
        assert_eq!(base(&proxy, service), "https://a.example:8443");
        let proxy = Proxy { listen_tls: tls, redirect_to_tls: redirect, ..config.proxy.clone() };
        assert_eq!(base(&proxy, service), "https://a.example", "the port that clients are sent to");
    }
}
