//! What differs between two configs, in sentences for whoever reloads.

use crate::config::{self, Config};
use crate::domain::Color;
use crate::tls;

/// A sentence for each setting that differs and is only read at start.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (&old.proxy, &new.proxy);
    let differs = [
        ("proxy.listen", a.listen != b.listen),
        ("proxy.listen_tls", a.listen_tls != b.listen_tls),
        ("proxy.redirect_to_tls", a.redirect_to_tls != b.redirect_to_tls),
        ("tls.acme", old.tls.acme != new.tls.acme),
        ("proxy.workers", a.workers != b.workers),
        ("proxy.trusted_proxies", a.trusted_proxies != b.trusted_proxies),
        ("proxy.proxy_protocol_from", a.proxy_protocol_from != b.proxy_protocol_from),
        ("proxy.header_timeout", a.header_timeout != b.header_timeout),
        ("proxy.body_timeout", a.body_timeout != b.body_timeout),
        ("proxy.idle_timeout", a.idle_timeout != b.idle_timeout),
        ("proxy.shutdown_timeout", a.shutdown_timeout != b.shutdown_timeout),
        ("proxy.max_connections", a.max_connections != b.max_connections),
        ("proxy.max_connections_per_client", a.max_connections_per_client != b.max_connections_per_client),
        ("proxy.max_requests_per_connection", a.max_requests_per_connection != b.max_requests_per_connection),
        ("proxy.min_body_rate", a.min_body_rate != b.min_body_rate),
        ("proxy.min_read_rate", a.min_read_rate != b.min_read_rate),
        ("proxy.max_header_bytes", a.max_header_bytes != b.max_header_bytes),
        ("proxy.max_body_bytes", a.max_body_bytes != b.max_body_bytes),
        ("proxy.via", a.via != b.via),
        ("proxy.http2", a.http2 != b.http2),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.token_file", old.admin.token != new.admin.token),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("state.dir", old.state.dir != new.state.dir),
        ("state.ledger", old.state.ledger != new.state.ledger),
        ("log", old.log != new.log),
    ];
    let changed = differs.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| format!("{name} changed: needs a restart")).collect()
}

/// A sentence for each certificate that differs, and one for the rest.
pub(super) fn describe_tls(old: &tls::Settings, new: &tls::Settings, changes: &mut Vec<String>) {
    for identity in &new.identities {
        let cert = identity.cert.display();
        match old.identities.iter().find(|before| before.cert == identity.cert) {
            Some(before) if before == identity => {}
            Some(_) => changes.push(format!("tls: {cert} was renewed, it expires {}", identity.expires())),
            None => changes.push(format!("tls: {cert} added, it expires {}", identity.expires())),
        }
    }
    let stays = |gone: &tls::Identity| new.identities.iter().any(|identity| identity.cert == gone.cert);
    let removed = old.identities.iter().filter(|identity| !stays(identity));
    changes.extend(removed.map(|identity| format!("tls: {} removed", identity.cert.display())));
    let rest = |tls: &tls::Settings| tls::Settings { identities: Vec::new(), ..tls.clone() };
    if rest(old) != rest(new) {
        changes.push("tls: settings changed, for new connections".into());
    }
}

/// A sentence for each part of a service that differs.
pub(super) fn describe(old: &config::Service, new: &config::Service, changes: &mut Vec<String>) {
    let addresses = |color: &config::ColorConfig| {
        let all: Vec<String> = color.upstreams.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    for color in Color::BOTH {
        let (before, after) = (addresses(&old.colors[color.index()]), addresses(&new.colors[color.index()]));
        if before != after {
            changes.push(format!("{}: {color} is now {after}, it was {before}", new.name));
        }
    }
    for color in Color::BOTH {
        let (before, after) = (&old.colors[color.index()], &new.colors[color.index()]);
        if (&before.image_tag, &before.project) != (&after.image_tag, &after.project) {
            let tag = after.image_tag.as_deref().unwrap_or("(none)");
            changes.push(format!("{}: {color} has image tag {tag}", new.name));
        }
    }
    let differs = [
        ("routing", (&old.hosts, &old.path_prefix) != (&new.hosts, &new.path_prefix)),
        ("upstream", old.upstream != new.upstream),
        ("health", old.health != new.health),
        ("watch", old.watch != new.watch),
        ("replay", old.replay != new.replay),
        ("rehearse", old.rehearse != new.rehearse),
        ("preview", old.preview != new.preview),
        ("skew_shield", old.skew_shield != new.skew_shield),
        ("drain", old.drain != new.drain),
        ("freeze", old.freeze != new.freeze),
        ("deploy", old.deploy != new.deploy),
        ("monitor", old.monitor != new.monitor),
    ];
    let changed = differs.into_iter().filter(|(_, differs)| *differs);
    changes.extend(changed.map(|(part, _)| format!("{}: {part} changed", new.name)));
}
