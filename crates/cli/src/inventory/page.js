'use strict';
for (const table of document.querySelectorAll('table')) {
  const body = table.tBodies[0], all = [...body.rows];
  const filter = Object.assign(document.createElement('input'), { className: 'filter', type: 'search', placeholder: 'filter' });
  filter.addEventListener('input', () => {
    const wanted = filter.value.toLowerCase();
    for (const row of all) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  if (all.length > 8) table.parentElement.before(filter);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    let order = 1;
    head.classList.add('sortable');
    head.addEventListener('click', () => {
      const text = (row) => row.cells[column].textContent;
      const compare = new Intl.Collator('en', { numeric: true }).compare;
      const sorted = [...all].sort((a, b) => order * compare(text(a), text(b)));
      order = -order;
      body.append(...sorted);
    });
  });
}
for (const details of document.querySelectorAll('details.alarm')) details.open = true;
addEventListener('beforeprint', () => { for (const it of document.querySelectorAll('details')) it.open = true; });
