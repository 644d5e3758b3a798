//! What a user of the application sees through the proxy on a good day.

mod streams {
    use crate::harness::{Setup, Upstream};

    #[test]
    fn keep_both_connections() {
        let (blue, green) = (Upstream::saying("blue"), Upstream::saying("green"));
        let cutover = Setup::of(&blue, &green).set("proxy.workers", 1).start();
        let mut client = cutover.client();
        for _ in 0..5 {
            assert_eq!(client.ask("GET /a HTTP/1.1\r\nHost: app\r\n\r\n").text(), "blue");
        }
        assert_eq!(cutover.get("/b").text(), "blue");
        let seen = blue.seen();
        assert_eq!(seen.len(), 1, "one connection for two clients");
        assert_eq!(String::from_utf8_lossy(&seen[0]).matches("GET /").count(), 6);
        assert!(green.seen().is_empty());
    }
}
