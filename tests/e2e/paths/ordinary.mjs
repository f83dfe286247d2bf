// Ordinary URLs of ordinary apps, as browsers and clients send them. None is under the rules of range.mjs, though
// many have `salary` somewhere.

const COUNT = 1000;

/** What people look for, write and name files, in their languages. */
const TEXTS = [
  "salary", "salary 2026", "Gehalt & Bonus", "größe 42", "crème brûlée", "¿qué es?", "niño", "São Paulo", "Łódź", "İstanbul",
  "зарплата", "Київ", "給料", "東京 タワー", "工资/薪水", "급여", "เงินเดือน", "वेतन", "راتب", "משכורת", "μισθός", "lương",
  "C# & C++", "100% cotton", "50% off!", "AT&T", "a+b=c", "R&D (2026)", "who's who?", "“quoted”", "rock 'n' roll", "5 > 3",
  "smile 😀", "👩‍💻 jobs", "✓ done", "§ 12 Abs. 3", "Nº 5", "½ cup", "#hashtag", "@mention", "x; y; z", "e.g. this...", "~draft",
];

const FILES = [
  "Report (final) v2.pdf", "Salary overview 2026.xlsx", "IMG_2026-11-24 09.30.15.jpg", "Lohn, Gehalt + Bonus.docx", "naïve café.txt",
  "данные.csv", "資料 (1).pptx", "backup.tar.gz", "a & b = c.png", "notes [draft].md", "50% done.txt", "what's new?.html",
  "price list #3.ods", "C++ primer; 2nd ed.epub", "summary..final.pdf", "jquery-3.7.1.min.js", "main.8f3a2c1d.chunk.css",
  "😀.svg", "résumé – Zoë.pdf", "1.0.0-beta.2+build.7.zip", "~$temp.docx", "photo@2x.webp", ".env.example", "Makefile",
];

const UUIDS = [
  "0b6f1c3e-58a4-4c2e-9d0f-7b1a2c3d4e5f", "018f4e3a-7c1b-7d2e-8f90-a1b2c3d4e5f6", "F47AC10B-58CC-4372-A567-0E02B2C3D479",
];

const IDS = ["dQw4w9WgXcQ", "eyJpZCI6NDJ9", "Zm9v_YmFy-QUI", "01HF8ZJ5T9W6Q2R3S4T5V6W7X8", "cus_9s6XKzkNRiz8i3", "42", "a1-b2_c3"];

const DATES = ["2026-11-24", "2026/11/24", "20261124T093000Z", "2026-11-24T09:30:00+01:00", "2026-W48", "24.11.2026"];

const WORDS = ["salary", "salaries", "Salary", "products", "orders", "guide", "settings", "team", "reports", "help"];

const PAIRS = pairs(WORDS, IDS);

/** Families of URLs, each as many as its parts allow. */
const FAMILIES = [
  ["/", "/index.html", "/favicon.ico", "/robots.txt", "/sitemap.xml", "/.well-known/security.txt", "/.well-known/acme-challenge/x-Y_z",
    "/salary.json", "/salary-calculator", "/salaries", "/salary_report.html", "/salary@example.com", "/mysalary", "/salary,2026",
    "/my/salary", "/docs/salary/2026", "/users", "/users/", "/users/7", "/users/7/", "/users/salary", "/users/salary/7",
    "/users/7/salary-history", "/users/7/salary.pdf", "/users/7/profile/salary", "/users/7/salary/history", "/user/7/salary",
    "/api/users/7/salary", "/users/7/salaries/2026", "/users/me/orders", "/users/me%40example.com/orders",
    "/search?q=salary", "/search?q=/salary/2026", "/login?next=/salary", "/login?next=%2Fsalary%2F2026", "/?salary", "/x?/salary",
    "/go?to=https://app.example.com/salary/2026", "/redirect?url=https%3A%2F%2Fapp.example.com%2Fsalary", "/salary-help?x=/../salary",
    "/graphql?query=%7Buser(id%3A7)%7Bsalary%7D%7D", "/api?filter[salary][gte]=1000&sort=-salary", "/?a=1;b=2;c=/salary",
    "/wp-content/plugins/salary-table/style.css?ver=6.4.2", "/wp-admin/admin-ajax.php", "/cgi-bin/app.pl", "/~user/home.html",
    "/-/healthz", "/_next/static/chunks/app/%5Bslug%5D/page-3f2a.js", "/_next/image?url=%2Fimg%2Fa.png&w=640&q=75", "/$metadata",
    "/@fs/src/main.ts", "/@vite/client", "/%40scope%2fpackage", "/@babel%2Fcore/-/core-7.26.0.tgz", "/v2/_catalog", "/a/b/c/d/e/f/g/h/i/j/k",
    "/socket.io/?EIO=4&transport=polling&t=P1x", "/maps/@52.52,13.405,15z", "/maps/dir/Berlin/M%C3%BCnchen/data=!3m1!4b1",
    "/web/20260101000000/https://www.example.com/salary/", "/web/2026*/example.com", "/cart;jsessionid=8A6F3C2E1D", "/wiki/C%2B%2B",
    "/wiki/What_Is_This%3F", "/wiki/100%25", "/wiki/Mr._Bean", "/wiki/Yahoo!", "/wiki/AC/DC", "/wiki/Inc.", "/wiki/...And_Justice_for_All",
    "/wiki/Salary_(disambiguation)", "/tags/.net", "/tags/node.js", "/tags/c%23", "/tags/f%23%2Fml", "/jobs/salary:50000-70000"],
  TEXTS.map((text) => `/search?q=${encodeURIComponent(text)}&page=2`),
  TEXTS.map((text) => `/search?q=${encodeURIComponent(text).replaceAll("%20", "+")}`),
  TEXTS.map((text) => `/search/${encodeURIComponent(text)}`),
  TEXTS.map((text) => `/wiki/${encodeURI(text.replaceAll(" ", "_")).replaceAll("#", "%23").replaceAll("?", "%3F")}`),
  TEXTS.map((text) => `/tag/${encodeURIComponent(text).toLowerCase()}/feed/`),
  TEXTS.map((text) => `/shop/c/${encodeURIComponent(text)}/sort;by=price;dir=asc`),
  TEXTS.map((text) => `/redirect?to=${encodeURIComponent(`https://example.com/${text}/salary?x=1#top`)}`),
  FILES.map((file) => `/files/${encodeURIComponent(file)}`),
  FILES.map((file) => `/users/7/files/${encodeURIComponent(file)}?download=1`),
  FILES.map((file) => `/bucket/invoices/2026/11/${encodeURIComponent(file).replaceAll("%20", "+")}`),
  FILES.map((file) => `/api/v4/projects/group%2Fsub%2Fapp/repository/files/docs%2F${encodeURIComponent(file)}/raw?ref=main`),
  FILES.map((file) => `/remote.php/dav/files/zo%C3%AB/Documents/Salary/${encodeURIComponent(file)}`),
  FILES.map((file) => `/storage/v1/b/my-bucket/o/${encodeURIComponent(`exports/2026/${file}`)}?alt=media`),
  FILES.map((file) => `/preview/${encodeURIComponent(`https://cdn.example.com/a b/${file}?v=2`)}`),
  pairs(UUIDS, WORDS).map(([uuid, word]) => `/api/v1/${word}/${uuid}/items`),
  pairs(UUIDS, DATES).map(([uuid, date]) => `/calendar/${uuid}/events/${encodeURIComponent(date)}`),
  pairs(DATES, WORDS).map(([date, word]) => `/blog/${date}/the-${word}-post/`),
  pairs(DATES, WORDS).map(([date, word]) => `/export/${word};from=${date};format=csv`),
  PAIRS.map(([word, id]) => `/p/${word}-for-everyone-${id}`),
  PAIRS.map(([word, id]) => `/api/${word}/${id}/salary`),
  PAIRS.map(([word, id]) => `/odata/${word}('${id}')/Items(1)?$select=Name,Salary&$filter=Salary%20gt%201000`),
  PAIRS.map(([word, id]) => `/api/users/${id}/${word}/salary?fields=salary,name`),
  PAIRS.map(([word, id]) => `/job/feature%252F${word}-${id}/lastBuild/console`),
  PAIRS.map(([word, id]) => `/map/${word};lat=52.52;lon=13.405/layer;id=${id}/`),
  PAIRS.map(([word, id]) => `/app/%23!/${word}/${id}`),
  PAIRS.map(([word, id]) => `/insecure/rs:fit:300:200/plain/https%3A%2F%2Fcdn.example.com%2F${word}%2F${id}.jpg@webp`),
  PAIRS.map(([word, id]) => `/users/${id}/${word}/${word}.v2`),
];

/** A thousand of them, from all families alike. */
export function ordinaryUrls() {
  const urls = new Set();
  for (let round = 0; urls.size < COUNT; round += 1) {
    for (const family of FAMILIES) if (round < family.length) urls.add(family[round]);
  }
  return [...urls].slice(0, COUNT);
}

function pairs(left, right) {
  return left.flatMap((one) => right.map((other) => [one, other]));
}
