//! SNS: the query protocol, with form parameters and answers in XML.

use std::fmt::Write;

use roxmltree::{Document, Node};

use crate::FailedEntry;
use crate::encoding::{encode_into, encoded_len};
use crate::error::Failure;
use crate::service::{Endpoint, ErrorAnswer, Keys, NAMES_BYTES, Service};

/// Bytes of the parameters of one message other than its body and targets, rounded up.
const PARAMETERS_BYTES: usize = 512;

/// A message to publish.
pub struct Message<'a> {
    /// Identifies the entry within its batch.
    pub id: &'a str,
    pub body: &'a [u8],
    /// Value of the attribute `to`: a JSON array of strings, by which subscriptions filter.
    pub to: &'a str,
}

/// A client of the topics of a region.
pub struct Topics {
    service: Service,
}

impl Topics {
    pub fn new(endpoint: &Endpoint) -> Self {
        Topics { service: Service::new("sns", NAMES_BYTES, endpoint) }
    }

    /// Publishes a batch to a topic and returns the entries that the service did not accept.
    pub fn publish(&self, keys: &Keys, topic_arn: &str, messages: &[Message<'_>]) -> Result<Vec<FailedEntry>, Failure> {
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        not_published(&self.service.post(keys, &headers, form(topic_arn, messages).as_bytes(), describe)?)
    }
}

fn form(topic_arn: &str, messages: &[Message<'_>]) -> String {
    let bodies: usize = messages.iter().map(|message| encoded_len(message.body.len()) + 3 * message.to.len()).sum();
    let mut form = String::with_capacity(bodies + PARAMETERS_BYTES * (1 + messages.len()));
    form.push_str("Action=PublishBatch&Version=2010-03-31&TopicArn=");
    percent_encode(topic_arn, &mut form);
    for (number, message) in (1..).zip(messages) {
        let entry = format!("&PublishBatchRequestEntries.member.{number}");
        let attribute = format!("{entry}.MessageAttributes.entry.1");
        form.push_str(&entry);
        form.push_str(".Id=");
        percent_encode(message.id, &mut form);
        form.push_str(&entry);
        form.push_str(".Message=");
        encode_into(message.body, &mut form); // URL-safe as it is
        write!(form, "{attribute}.Name=to{attribute}.Value.DataType=String.Array{attribute}.Value.StringValue=")
            .expect("a string takes all text");
        percent_encode(message.to, &mut form);
    }
    form
}

/// Appends text with all but the unreserved characters of RFC 3986 percent-encoded.
fn percent_encode(text: &str, form: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(byte.into());
        } else {
            write!(form, "%{byte:02X}").expect("a string takes all text");
        }
    }
}

/// Reads an answer to PublishBatch: the entries that failed.
pub fn not_published(body: &[u8]) -> Result<Vec<FailedEntry>, Failure> {
    failed_entries(body).ok_or_else(|| Failure::NoAnswer("the response to PublishBatch is not whole XML".to_owned()))
}

/// Returns the entries that failed, or None if the body is not a whole answer.
fn failed_entries(body: &[u8]) -> Option<Vec<FailedEntry>> {
    let document = Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let result = child(document.root_element(), "PublishBatchResult")?;
    let Some(failed) = child(result, "Failed") else { return Some(Vec::new()) };
    let entry = |member| FailedEntry {
        id: text(member, "Id"),
        code: text(member, "Code"),
        message: text(member, "Message"),
        sender_fault: text(member, "SenderFault") == "true",
    };
    Some(failed.children().filter(Node::is_element).map(entry).collect())
}

/// Reads the code and the message of an error.
pub fn describe(answer: &ErrorAnswer<'_>) -> Option<(String, String)> {
    let document = Document::parse(std::str::from_utf8(answer.body).ok()?).ok()?;
    let error = document.descendants().find(|node| node.tag_name().name() == "Error");
    Some(error.map_or_else(
        || (answer.status.to_string(), String::new()),
        |error| (text(error, "Code"), text(error, "Message")),
    ))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}

fn text(node: Node<'_, '_>, name: &str) -> String {
    child(node, name).and_then(|child| child.text()).unwrap_or_default().to_owned()
}
