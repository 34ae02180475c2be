//! Facts about documents and how they are cut.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::chunks::cut;
use super::documents::{Document, Marks, list, normalise, read};
use super::html::to_markdown;
use super::job::Chunking;
use super::pdf;

const SIZES: Chunking = Chunking { target: 300, bound: 400, overlap: 0 };

fn document(text: &str, marked: Marks) -> Document {
    Document { path: "d.md".into(), title: "D".to_string(), text: normalise(text), marked, pages: Vec::new() }
}

/// A PDF of one object a string, with a right cross-reference table.
fn pdf_of(objects: &[String]) -> Vec<u8> {
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
    }
    let at = file.len();
    let trailer = format!("{table}trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n", objects.len() + 1);
    file.extend(trailer.bytes());
    file
}

/// A page for each text; `""` is a page without any, as a scanned one.
fn pdf_pages(texts: &[&str]) -> Vec<u8> {
    let kids: Vec<String> = (0..texts.len()).map(|page| format!("{} 0 R", 4 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), texts.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_string(),
    ];
    for (page, text) in texts.iter().enumerate() {
        let font = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]";
        objects.push(format!("<< /Type /Page /Parent 2 0 R {font} /Contents {} 0 R >>", 5 + 2 * page));
        let stream = match text.is_empty() {
            true => String::new(),
            false => format!("BT /F1 12 Tf 72 700 Td ({text}) Tj ET"),
        };
        objects.push(format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()));
    }
    pdf_of(&objects)
}

#[test]
fn the_text_of_a_pdf_is_read_with_its_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manual.pdf");
    fs::write(&path, pdf_pages(&["The pump holds nine litres.", "The filter is changed each spring."])).unwrap();
    let document = read(&path).unwrap();
    assert_eq!(document.title, "manual");
    assert_eq!(document.text, "The pump holds nine litres.\n\nThe filter is changed each spring.");
    let chunks = cut(&document, Chunking { target: 30, bound: 40, overlap: 0 });
    let pages: Vec<_> = chunks.iter().map(|chunk| chunk.pages.unwrap()).collect();
    assert_eq!(pages, [[1, 1], [2, 2]]);
}

#[test]
fn a_pdf_that_is_scanned_encrypted_broken_or_no_pdf_is_named_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let reason = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        read(&path).unwrap_err().reason
    };
    assert!(reason("scan.pdf", &pdf_pages(&["", ""])).contains("OCR"));
    assert!(reason("text.pdf", b"hello").contains("not a PDF"));
    assert!(reason("garbage.pdf", b"%PDF-1.7\n\xff\xfe garbage").contains("not readable as PDF"));
    let whole = pdf_pages(&["A page."]);
    let keys =
        "/Filter /Standard /V 1 /R 2 /P -4 /O (01234567890123456789012345678901) /U (01234567890123456789012345678901)";
    let encrypted = String::from_utf8(whole).unwrap();
    let encrypted = encrypted.replace("/Root 1 0 R", &format!("/Root 1 0 R /ID [(a) (a)] /Encrypt << {keys} >>"));
    let told = reason("secret.pdf", encrypted.as_bytes());
    assert!(told.contains("encrypted"), "{told}");
}

#[test]
fn a_pdf_cut_at_any_byte_or_changed_in_any_byte_never_ends_the_job() {
    let whole = pdf_pages(&["The pump holds nine litres."]);
    for at in (0..whole.len()).step_by(7) {
        let _ = pdf::pages(whole[..at].to_vec(), Duration::from_secs(20));
        let mut changed = whole.clone();
        changed[at] ^= 0x15;
        let _ = pdf::pages(changed, Duration::from_secs(20));
    }
}

#[test]
fn a_pdf_whose_tree_or_form_holds_itself_is_refused() {
    let page = "<< /Type /Page /Parent 2 0 R /Resources << /XObject << /X 5 0 R >> >> /Contents 4 0 R";
    let form = "<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >> /Length 5 >>\nstream\n/X Do\nendstream";
    let content = "<< /Length 5 >>\nstream\n/X Do\nendstream";
    let objects = |parent: &str, form: &str| {
        let tree = format!("<< /Type /Pages /Kids [3 0 R] /Count 1 {parent} >>");
        let catalog = "<< /Type /Catalog /Pages 2 0 R >>";
        pdf_of(&[catalog.into(), tree, format!("{page} >>"), content.into(), form.into()])
    };
    let told = pdf::pages(objects("/Parent 2 0 R", content), Duration::from_secs(20)).unwrap_err();
    assert!(told.contains("page tree holds itself"), "{told}");
    let told = pdf::pages(objects("", form), Duration::from_secs(20)).unwrap_err();
    assert!(told.contains("form"), "{told}");
}

#[test]
fn the_time_limit_of_a_pdf_is_kept() {
    let told = pdf::pages(pdf_pages(&["A page."]), Duration::ZERO);
    assert!(told.is_err_and(|reason| reason.contains("not read within")));
}

#[test]
fn documents_come_once_in_the_given_order_from_files_folders_and_globs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    fs::create_dir_all(at(".hidden")).unwrap();
    for name in ["b.md", "a.txt", "c.rs", "deep/er/d.HTML", ".hidden/e.md"] {
        fs::write(at(name), "text").unwrap();
    }
    let text = |path: &Path| path.display().to_string();
    let found = list(&[text(&at("b.md")), text(folder.path()), text(&at("*.txt"))]).unwrap();
    let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_path_buf()).collect();
    assert_eq!(names, [Path::new("b.md"), Path::new("a.txt"), Path::new("deep/er/d.HTML")]);
    for wrong in ["c.rs", "missing.md", "*.pdf", ".hidden/none"] {
        assert!(list(&[text(&at(wrong))]).is_err(), "{wrong}");
    }
}

#[test]
fn a_text_that_is_not_utf8_is_named_and_utf16_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, b"good\xff").unwrap();
    assert!(read(&path).unwrap_err().reason.contains("byte 4"));
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain("größer".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    fs::write(&path, wide).unwrap();
    assert_eq!(read(&path).unwrap().text, "größer");
    fs::write(&path, " \n\t\n").unwrap();
    assert!(read(&path).unwrap_err().reason.contains("no text"));
}

#[test]
fn html_becomes_headings_paragraphs_and_code() {
    let html = "<html><head><title>The &amp; Guide</title><style>p{}</style></head><body><h1>One</h1><p>First\n line &lt;b&gt;\
                <script>x<1</script></p><pre>a  b\nc</pre><ul><li>two</ul><!-- no --> 3 < 4 &#228;";
    let page = to_markdown(html);
    assert_eq!(page.title.as_deref(), Some("The & Guide"));
    assert_eq!(normalise(&page.markdown), "# One\n\nFirst line <b>\n\n```\na  b\nc\n\n```\n\n- two\n\n3 < 4 ä");
    let begin = std::time::Instant::now();
    to_markdown(&"<a".repeat(500_000));
    to_markdown(&"<!--".repeat(500_000));
    assert!(begin.elapsed().as_secs() < 10);
}

#[test]
fn every_word_of_a_document_stands_in_a_chunk_and_no_chunk_passes_the_bound() {
    let mut text = String::new();
    for section in 0..12 {
        text.push_str(&format!("# Part {section}\n\n## Sub {section}\n\n"));
        for sentence in 0..section * 9 {
            text.push_str(&format!("Wörter number {sentence} of part {section} stand here. "));
        }
        text.push_str("\n\n```\nlet x = 1;\n# no heading\n\nlet y = 2;\n```\n\n");
    }
    text.push_str(&"x".repeat(3_000));
    for overlap in [0, 60, 150] {
        let document = document(&text, Marks::Markdown);
        let chunks = cut(&document, Chunking { overlap, ..SIZES });
        let characters: Vec<char> = document.text.chars().collect();
        let mut end = 0;
        for chunk in &chunks {
            let [from, to] = chunk.characters.map(|at| at as usize);
            assert_eq!(chunk.text, characters[from..to].iter().collect::<String>());
            assert!(to - from <= SIZES.bound, "{} characters", to - from);
            let skipped: String = characters[end.min(from)..from].iter().collect();
            assert!(from <= end || skipped.trim().is_empty(), "lost {skipped:?}");
            assert!(from == 0 || from > end || overlap > 0 || characters[from - 1] == 'x');
            end = to;
            assert_eq!(chunk.text.matches("```").count() % 2, 0, "a cut code block: {}", chunk.text);
        }
        assert_eq!(end, characters.len());
        let under: Vec<_> = chunks.iter().filter(|chunk| chunk.text.contains("of part 9 stand")).collect();
        assert!(under.len() > 1 && under.iter().all(|chunk| chunk.headings == ["Part 9", "Sub 9"]), "{under:?}");
    }
}

#[test]
fn words_are_not_cut_where_there_is_a_space_to_cut_at() {
    let text = "sevenly ".repeat(400);
    for chunk in cut(&document(&text, Marks::None), Chunking { overlap: 50, ..SIZES }) {
        assert!(chunk.text.split(' ').all(|word| word == "sevenly"), "{}", chunk.text);
    }
}

#[test]
fn a_heading_goes_with_what_follows_it() {
    let text = format!("{}\n\n# Next\n\n{}", "word ".repeat(55), "other ".repeat(45));
    let chunks = cut(&document(&text, Marks::Markdown), SIZES);
    assert_eq!(chunks.len(), 2);
    assert!(chunks[1].text.starts_with("# Next") && chunks[1].headings == ["Next"]);
}
