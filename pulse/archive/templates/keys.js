// The key "/" goes to the search field, on this page or on the list.
"use strict";
addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  event.preventDefault();
  const field = document.querySelector("#find");
  if (field) field.focus();
  else location.href = document.querySelector(".page-home").href + "#find";
});
if (location.hash === "#find") document.querySelector("#find")?.focus();
