const search = document.querySelector("#search"), rows = [...document.querySelectorAll("tbody tr")];
const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
};
search.value = new URLSearchParams(location.search).get("name") || "";
search.parentElement.hidden = false;
search.addEventListener("input", filter);
filter();
